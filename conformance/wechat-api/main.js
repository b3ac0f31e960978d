'use strict';

const { promisify } = require('util');

const API = require('wechat-api');
const run = require('../scenario');

function client(base, appid, secret) {
  const api = new API(appid, secret);
  // setEndpoint always adds https://, so set the field for plain HTTP.
  api.endpoint = base;
  const call = (name) => promisify(api[name].bind(api));
  return {
    user: (openid) => call('getUser')({ openid, lang: 'zh_CN' }),
    users: () => call('getFollowers')(),
    createMenu: (menu) => call('createMenu')(menu),
    menu: () => call('getMenu')(),
    template: (openid, t) => call('sendTemplate')(openid, t.id, t.url, t.data),
    upload: async (path) => (await call('uploadMedia')(path, 'image')).media_id,
    media: (id) => call('getMedia')(id),
  };
}

run({ account: client });
