const { createHmac, timingSafeEqual } = require('crypto');
const { parseStringPromise, Builder } = require('xml2js');
const replies = new Map(); // in production: a table with a unique key

function isSigned(header = '', body) {
  const [, t, v1] = /^t=(\d+),v1=([0-9a-f]{64})$/.exec(header) || [];
  const made = createHmac('sha256', process.env.SECRET).update(`${t}.`).update(body).digest();
  return v1 && timingSafeEqual(made, Buffer.from(v1, 'hex')) && Math.abs(Date.now() / 1000 - t) < 300;
}

async function handle(body) {
  const { xml: push } = await parseStringPromise(body, { explicitArray: false });
  console.log('handled', push.MsgId);
  if (push.MsgType !== 'text') return 'success';
  return new Builder({ headless: true }).buildObject({ xml: {
    ToUserName: push.FromUserName, FromUserName: push.ToUserName,
    CreateTime: Math.floor(Date.now() / 1000), MsgType: 'text', Content: push.Content } });
}

require('http').createServer(async (req, res) => {
  const chunks = [];
  for await (const chunk of req) chunks.push(chunk);
  const body = Buffer.concat(chunks), event = req.headers['x-wxproxy-event'];
  if (!isSigned(req.headers['x-wxproxy-signature'], body)) return res.writeHead(403).end();
  if (!replies.has(event)) replies.set(event, handle(body.toString()));
  try {
    res.end(await replies.get(event));
  } catch {
    replies.delete(event);
    res.writeHead(500).end();
  }
}).listen(Number(process.argv[2]), '127.0.0.1');
