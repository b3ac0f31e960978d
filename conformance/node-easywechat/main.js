'use strict';

const fs = require('fs');

const { OfficialAccount, MiniApp, OpenPlatform } = require('node-easywechat');
const run = require('../scenario');

// json is code that users of this SDK need: it throws no error for an errcode.
function json(response) {
  const got = response.toObject();
  if (!got || got.errcode) throw new Error(`WeChat answered ${got && got.errcode} ${got && got.errmsg}`);
  return got;
}

function bytes(response) {
  const got = response.toString && response.response.data;
  if (/json/.test(response.getHeader('content-type'))) throw new Error(`WeChat answered ${got}`);
  return Buffer.from(got);
}

// client uses paths, because the SDK has no functions for endpoints since version 3.
function client(app, login) {
  const c = () => app.getClient();
  return {
    user: async (openid) => json(await c().get('/cgi-bin/user/info', { params: { openid, lang: 'zh_CN' } })),
    users: async () => json(await c().get('cgi-bin/user/get')),
    createMenu: async (menu) => json(await c().postJson('/cgi-bin/menu/create', menu)),
    menu: async () => json(await c().get('/cgi-bin/menu/get')),
    template: async (openid, t) => json(await c().postJson('/cgi-bin/message/template/send', { touser: openid, template_id: t.id, url: t.url, data: t.data })),
    upload: async (path) => json(await c().withFile(fs.createReadStream(path), 'media').post('/cgi-bin/media/upload', { params: { type: 'image' } })).media_id,
    media: async (id) => bytes(await c().get('/cgi-bin/media/get', { params: { media_id: id }, responseType: 'arraybuffer' })),
    code: async (scene, page) => bytes(await c().request('post', '/wxa/getwxacodeunlimit', { json: { scene, page }, responseType: 'arraybuffer' })),
    login,
  };
}

// The SDK stores tokens in files of the working directory.
const config = (base, appid, secret) => ({ app_id: appid, secret, http: { baseURL: base } });

function account(base, appid, secret) {
  return client(new OfficialAccount(config(base, appid, secret)));
}

function mini(base, appid, secret) {
  const app = new MiniApp({ ...config(base, appid, secret), use_stable_access_token: true });
  return client(app, (code) => app.getUtils().codeToSession(code));
}

async function platform(base, appid, secret) {
  // The SDK requires a token and a key for pushes, and a ticket, which are not used.
  const app = new OpenPlatform({ ...config(base, appid, secret), token: 'any', aes_key: 'a'.repeat(43) });
  await app.getVerifyTicket().setTicket('any ticket');
  return {
    preAuthCode: async () => (await app.createPreAuthorizationCode()).pre_auth_code,
    accountByCode: async (code) => client(app.getOfficialAccount((await app.getAuthorization(code)).getAccessToken())),
    account: async (appid, refreshToken) => client(await app.getOfficialAccountWithRefreshToken(appid, refreshToken)),
    mini: async (miniAppid, refreshToken) => {
      const m = await app.getMiniAppWithRefreshToken(miniAppid, refreshToken);
      return client(m, (code) => m.getUtils().code2Session(code));
    },
  };
}

run({ account, mini, platform });
