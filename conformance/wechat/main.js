'use strict';

// The middleware of npm's wechat, which verifies, decrypts and replies: with
// TOKEN alone in plain mode, with APPID and KEY in safe mode too.
const http = require('http');
const wechat = require('wechat');

const { TOKEN: token, APPID: appid, KEY: encodingAESKey, PORT } = process.env;
const middleware = wechat({ token, appid, encodingAESKey, checkSignature: true }, (req, res) => {
  const m = req.weixin;
  console.log('handled', m.MsgId);
  // The middleware puts a reply into a CDATA section and escapes nothing.
  res.reply(`${String(m.Content).replaceAll(']]>', '...')} from ${m.FromUserName}`);
});

http.createServer((req, res) => {
  req.query = Object.fromEntries(new URL(req.url, 'http://localhost').searchParams);
  middleware(req, res, (err) => {
    if (err) console.log(err);
    res.writeHead(500).end();
  });
}).listen(Number(PORT), '127.0.0.1');
