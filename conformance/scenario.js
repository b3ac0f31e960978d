'use strict';

// The scenario for all SDKs for Node. A folder contains only what is particular to its
// SDK. The programs do not know wxproxy: they receive an address, an appid and a secret
// in their environment. They print every step.
//
// An SDK is an object with a function for each kind of client that it has:
// account(base, appid, secret), mini(base, appid, secret), and for third-party
// platforms platform(base, appid, secret).

const assert = require('assert');
const fs = require('fs');

const env = (name) => {
  if (!process.env[name]) throw new Error(`${name} is not set`);
  return process.env[name];
};

const openid = 'oSandboxUser0000000000000001';

// The menu has characters that change if a proxy decodes and encodes JSON.
const menu = { button: [{ type: 'view', name: '今日<歌曲>&"more"', url: 'http://example.com/?a=1&b=2' }, { type: 'click', name: '赞', key: 'V1' }] };

const template = { id: 'TEMPLATE-1', url: 'http://example.com/?a=1&b=2', data: { first: { value: '您好 <b>&' } } };

async function step(name, what) {
  await what();
  console.log('ok', name);
}

// control calls the control API of the sandbox.
async function control(method, path, body) {
  const resp = await fetch(env('CONTROL_URL') + '/sandbox/' + path, { method, body: body && JSON.stringify(body) });
  const text = await resp.text();
  if (!resp.ok) throw new Error(`sandbox: ${resp.status} ${text}`);
  return JSON.parse(text);
}

// fails returns the error of what, as text. It throws if what succeeds.
async function fails(what) {
  let result;
  try {
    result = await what();
  } catch (err) {
    return `${err.name} ${err.code} ${err.message}`;
  }
  throw new Error(`got ${JSON.stringify(result)}, want an error`);
}

async function upload(c) {
  const path = env('FILE');
  const id = await c.upload(path);
  assert(typeof id === 'string' && id.length > 10, `media_id: ${id}`);
  const got = await c.media(id);
  assert(Buffer.isBuffer(got) && got.equals(fs.readFileSync(path)), 'got different media than uploaded');
}

async function account(c, appid) {
  await step('user/info', async () => assert.strictEqual((await c.user(openid)).openid, openid));
  await step('user/get', async () => assert.strictEqual((await c.users()).data.openid.length, 3));
  await step('menu', async () => {
    await c.createMenu(menu);
    const got = await c.menu();
    assert.strictEqual(got.menu.button[0].name, menu.button[0].name);
    assert.strictEqual(got.menu.button[0].url, menu.button[0].url);
  });
  await step('template/send', async () => assert((await c.template(openid, template)).msgid));
  await step('media', () => upload(c));
  await control('POST', `expire?appid=${appid}`);
  await step('media, its token expired', () => upload(c));
  await control('POST', `supersede?appid=${appid}`);
  await step('template/send, its token superseded', async () => assert((await c.template(openid, template)).msgid));
  await control('POST', 'faults', { path: '/cgi-bin/user/info', break: 'before' });
  await step('an outage is an error', () => fails(() => c.user(openid)));
  await control('DELETE', 'faults');
  await step('user/info after it', async () => assert.strictEqual((await c.user(openid)).openid, openid));
}

async function mini(c, appid) {
  const picture = async () => {
    const got = await c.code('scene=1', 'pages/index');
    assert(Buffer.isBuffer(got) && got.length > 100 && got[0] === 0xff && got[1] === 0xd8, 'got no picture');
  };
  if (c.code) {
    await step('getwxacodeunlimit', picture);
    await control('POST', `expire?appid=${appid}`);
    await step('getwxacodeunlimit, its token expired', picture);
  }
  if (c.login) {
    await step('jscode2session', async () => {
      const got = await c.login('code-' + Date.now());
      assert(got.openid && got.session_key, JSON.stringify(got));
    });
    await step('jscode2session, a bad code', async () => assert.match(await fails(() => c.login('invalid-code')), /40029/));
  }
}

async function platform(p, appid, miniAppid) {
  await step('api_create_preauthcode', async () => assert.match(await p.preAuthCode(), /^preauthcode@@@/));
  await control('POST', 'expire?appid=component');
  await step('api_create_preauthcode, its token expired', async () => assert.match(await p.preAuthCode(), /^preauthcode@@@/));
  const { code } = await control('POST', `code?appid=${appid}`);
  if (process.env.EXCHANGE) {
    await step('api_query_auth', async () => account(await p.accountByCode(code), appid));
  } else {
    await step('api_authorizer_token, the account', async () => account(await p.account(appid, 'any refresh token'), appid));
  }
  await step('api_authorizer_token, the mini program', async () => mini(await p.mini(miniAppid, 'any refresh token'), miniAppid));
}

async function refused(sdk, base) {
  const wrong = sdk.account(base, env('APPID'), 'not-the-key');
  await step('a wrong secret is 40125', async () => assert.match(await fails(() => wrong.user(openid)), /40125/));
  const unknown = sdk.account(base, 'wxeeeeeeeeeeeeeeee', env('SECRET'));
  await step('a wrong appid is 40013', async () => assert.match(await fails(() => unknown.user(openid)), /40013/));
}

module.exports = async function run(sdk) {
  const base = env('BASE_URL'), appid = env('APPID'), miniAppid = env('MINI_APPID'), secret = env('SECRET');
  const modes = {
    plain: async () => {
      await account(sdk.account(base, appid, secret), appid);
      if (sdk.mini) await mini(sdk.mini(base, miniAppid, secret), miniAppid);
    },
    // Users often write a base URL with a trailing slash, and most SDKs add another.
    prefix: async () => {
      await account(sdk.account(`${base}/${appid}/`, appid, secret), appid);
      if (sdk.mini) await mini(sdk.mini(`${base}/${miniAppid}/`, miniAppid, secret), miniAppid);
    },
    platform: async () => {
      const component = env('COMPONENT_APPID');
      const at = `${base}/${component}`;
      await platform(await sdk.platform(at, component, secret), appid, miniAppid);
    },
    refused: () => refused(sdk, base),
  };
  try {
    await modes[env('MODE')]();
  } catch (err) {
    console.log('failed', err.stack);
    process.exit(1);
  }
  console.log('done');
  process.exit(0); // some SDKs keep connections open, which keeps the process running
};
