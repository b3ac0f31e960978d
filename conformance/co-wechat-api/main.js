'use strict';

const API = require('co-wechat-api');
const run = require('../scenario');

function client(base, appid, secret) {
  const api = new API(appid, secret);
  // There is no single option for the base URL: each prefix contains a host.
  api.prefix = base + '/cgi-bin/';
  api.snsPrefix = base + '/sns/';
  api.wxaPrefix = base + '/wxa/';
  api.customservicePrefix = base + '/customservice/';
  return {
    user: (openid) => api.getUser({ openid, lang: 'zh_CN' }),
    users: () => api.getFollowers(),
    createMenu: (menu) => api.createMenu(menu),
    menu: () => api.getMenu(),
    template: (openid, t) => api.sendTemplate(openid, t.id, t.url, '#173177', t.data),
    upload: async (path) => (await api.uploadMedia(path, 'image')).media_id,
    media: (id) => api.getMedia(id),
    code: (scene, page) => api.getWXACodeUnlimit(scene, page),
    login: (code) => api.code2Session(code),
  };
}

run({ account: client, mini: client });
