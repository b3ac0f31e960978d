// The operator's page. It shows what /api/ returns and calls its operations. Values
// from there are inserted as text, never as markup.
"use strict";

const words = {
  en: {
    status: "Status", ready: "ready", notReady: "not ready", ticket: "Ticket", component: "Component token", accounts: "Accounts", process: "Running for",
    ticketNone: "none", ticketNoneNote: "WeChat has not pushed one yet", ticketNote: "since WeChat's last push; WeChat pushes one every 10 minutes", noComponent: "no component is configured",
    tokenOver: "expired", tokenNone: "none", left: "{} left", counts: "{} active", countsNote: "{0} failing, {1} revoked, {2} forgotten", store: "store: {}", total: "{} in total", found: "{} found",
    search: "Search", searchHint: "appid or name", sync: "Compare with WeChat", syncing: "Comparing …", synced: "{listed} on WeChat's list: {added} added, {recovered} recovered, {revoked} revoked",
    name: "Name", type: "Type", state: "State", token: "Token expires", authorized: "Authorized", actions: "Actions", refresh: "Renew", forget: "Forget", refreshed: "{} has a new token", wasForgotten: "{} was forgotten", anyState: "any state",
    empty: "No accounts.", previous: "Previous", next: "Next", ago: "{} ago", in: "in {}", over: "expired {} ago", none: "none", cancel: "Cancel",
    forgetTitle: "Forget this account?", forgetText: "This deletes its refresh token here, and its requests get 410 until it authorizes again or you renew it. Nothing changes at WeChat.",
    events: "Events", event: "Event", queued: "{} waiting", queueNote: "{dead} dead, the oldest waits {oldest}", queueNone: "{dead} dead", service: "Service", waiting: "waiting", dead: "dead", tries: "Tries", pushed: "Pushed", nextTry: "Next try", nextIn: "in {}", now: "now",
    view: "View", retry: "Retry", drop: "Drop", retryAll: "Retry all dead", noEvents: "No events.", document: "Document", confidential: "What users wrote is confidential.", close: "Close", unreadable: "The stored event cannot be read.", retried: "{} tried again now", dropped: "{} dropped",
    dropTitle: "Drop this event?", dropText: "The service never gets it.", retryTitle: "Retry all dead events?", retryText: "They are delivered again, in their old order. A service can get an event twice.", allServices: "all services",
    v_id: "Event", v_kind: "Kind", v_account: "Account", v_user: "User", v_pushed: "Pushed", v_type: "Type", v_delivery: "Delivery",
    explain: "Explain a request", explainHint: "what wxproxy would do with it, without doing it", explainDo: "Explain", method: "Method", path: "Path", caller: "Caller", optional: "optional",
    active: "active", revoked: "revoked", failing: "failing", forgotten: "forgotten", unreachable: "wxproxy does not respond.",
    x_call: "Request", x_answer: "Response", x_credential: "Credential", x_parameter: "Parameter", x_adds: "Also injected", x_removes: "Removed", x_twin: "Forwarded to", x_rule: "Rule", x_account: "Account",
    x_token: "Token", x_masked: "Response", x_maskedText: "with credentials masked", x_caller: "Caller", x_note: "Note", x_forwarded: "from WeChat", x_own: "{} from wxproxy itself",
    x_may: "{} is allowed to make this request", x_mayNot: "{} is not allowed to make this request", r_route: "[[route]] {}", r_table: "{} in the built-in table", r_default: "the default: the account's token", r_: "rejected before the rules",
    c_component: "the component's token", c_authorizer: "the authorizer's token", c_app: "the token of an own account", c_secret: "the secret of an own account", c_none: "none", c_refused: "none: the request is not forwarded",
  },
  zh: {
    status: "状态", ready: "就绪", notReady: "未就绪", ticket: "Ticket 距今", component: "第三方平台令牌", accounts: "账号", process: "已运行",
    ticketNone: "无", ticketNoneNote: "微信尚未推送", ticketNote: "距微信上次推送；每 10 分钟一次", noComponent: "未配置第三方平台",
    tokenOver: "已过期", tokenNone: "无", left: "剩余 {}", counts: "{} 正常", countsNote: "{0} 异常，{1} 已取消授权，{2} 已移除", store: "存储：{}", total: "共 {} 个", found: "找到 {} 个",
    search: "搜索", searchHint: "appid 或名称", sync: "与微信核对", syncing: "正在核对…", synced: "微信列表 {listed} 个：新增 {added}，恢复 {recovered}，取消授权 {revoked}",
    name: "名称", type: "类型", state: "状态", token: "令牌过期", authorized: "授权时间", actions: "操作", refresh: "刷新", forget: "移除", refreshed: "{} 已换新令牌", wasForgotten: "{} 已移除", anyState: "全部状态",
    empty: "没有账号。", previous: "上一页", next: "下一页", ago: "{}前", in: "{}后过期", over: "已过期 {}", none: "无", cancel: "取消",
    forgetTitle: "移除此账号？", forgetText: "本地的 refresh token 会被删除；在其重新授权或您手动刷新之前，对它的调用一律返回 410。微信侧不变。",
    events: "事件", event: "事件", queued: "{} 条等待", queueNote: "{dead} 条失效，最早的已等待 {oldest}", queueNone: "{dead} 条失效", service: "服务", waiting: "等待投递", dead: "失效", tries: "尝试次数", pushed: "推送时间", nextTry: "下次尝试", nextIn: "{}后", now: "即刻",
    view: "查看", retry: "重试", drop: "丢弃", retryAll: "重试全部失效事件", noEvents: "没有事件。", document: "内容", confidential: "用户所写的内容属于机密。", close: "关闭", unreadable: "无法读取已存储的事件。", retried: "{} 条立即重试", dropped: "{} 条已丢弃",
    dropTitle: "丢弃此事件？", dropText: "该服务将不会再收到它。", retryTitle: "重试全部失效事件？", retryText: "将按原有顺序重新投递；服务可能重复收到同一事件。", allServices: "全部服务",
    v_id: "事件", v_kind: "种类", v_account: "账号", v_user: "用户", v_pushed: "推送时间", v_type: "类型", v_delivery: "投递",
    explain: "解释一次调用", explainHint: "wxproxy 会如何处理；不会真正调用", explainDo: "解释", method: "方法", path: "路径", caller: "调用方", optional: "可选",
    active: "正常", revoked: "已取消授权", failing: "异常", forgotten: "已移除", unreachable: "wxproxy 没有应答。",
    x_call: "调用", x_answer: "应答", x_credential: "凭据", x_parameter: "参数", x_adds: "另外加入", x_removes: "去除", x_twin: "转发到", x_rule: "规则", x_account: "账号",
    x_token: "令牌", x_masked: "应答", x_maskedText: "其中的凭据会被遮蔽", x_caller: "调用方", x_note: "说明", x_forwarded: "来自微信", x_own: "{}，由 wxproxy 直接应答",
    x_may: "{} 可以调用", x_mayNot: "{} 不可以调用", r_route: "[[route]] {}", r_table: "{}（内置表）", r_default: "默认：账号令牌", r_: "未到达任何规则",
    c_component: "第三方平台令牌", c_authorizer: "授权方令牌", c_app: "自有账号令牌", c_secret: "自有账号 secret", c_none: "无", c_refused: "无：不转发",
  },
};
const zhTypes = { "official account": "公众号", "subscription account": "订阅号", "service account": "服务号", "Channels account": "视频号", "shop": "小店", "promoter": "带货助手", "supplier": "供货商", "mini program": "小程序", "component": "第三方平台", "own account": "自有账号", "authorizer": "授权方", "app": "自有账号" };

const $ = (id) => document.getElementById(id);
let language = (navigator.language || "en").startsWith("zh") ? "zh" : "en";
let lastStatus = null, lastList = null, lastEvents = null, lastExplanation = null;
let offset = 0, search = "", state = "";
const limit = 20;

// say returns the text with a name, with values in the places of {}, {0}, {name}.
function say(name, values = "") {
  return words[language][name].replace(/\{(\w*)\}/g, (_, key) => key === "" ? values : values[key]);
}

// span returns a duration in one or two units.
function span(seconds) {
  const s = Math.abs(Math.trunc(seconds)), m = Math.trunc(s / 60), h = Math.trunc(m / 60);
  const [S, M, H, D] = language === "zh" ? [" 秒", " 分钟", " 小时", " 天"] : ["s", "m", "h", "d"];
  if (s < 60) return s + S;
  if (m < 60) return m + M;
  if (h < 48) return h + H + (m % 60 ? (language === "zh" ? " " : "") + m % 60 + M : "");
  return Math.trunc(h / 24) + D;
}

const since = (time) => (Date.now() - Date.parse(time)) / 1000;
const typeOf = (a) => language === "zh" ? zhTypes[a.type || a.kind] || a.type || a.kind : a.type || a.kind;

// put sets the text of an element, and its class if one is given.
function put(id, text, className) {
  const e = $(id);
  e.textContent = text;
  if (className !== undefined) e.className = className;
}

// make creates an element with text.
function make(tag, text, className) {
  const e = document.createElement(tag);
  if (text !== undefined) e.textContent = text;
  if (className) e.className = className;
  return e;
}

// ask returns the JSON of a response, or throws an error to show to the user.
async function ask(path, method = "GET") {
  let response, answer;
  try {
    response = await fetch(path, { method, headers: { Accept: "application/json" } });
    answer = await response.json();
  } catch {
    throw new Error(say("unreachable"));
  }
  if (!response.ok) throw new Error(answer.error + (answer.hint ? " – " + answer.hint : ""));
  return answer;
}

// toast shows a message for some seconds.
let toastTimer = 0;
function toast(text, bad) {
  put("toast", text, bad ? "bad" : "");
  $("toast").hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => { $("toast").hidden = true; }, bad ? 9000 : 4000);
}

// showStatus fills the cards at the top from lastStatus.
function showStatus() {
  const s = lastStatus;
  if (!s) return;
  put("version", s.version);
  put("ready", say(s.ready ? "ready" : "notReady"), "pill " + (s.ready ? "good" : "bad"));
  $("reasons").replaceChildren(...s.reasons.map((reason) => make("li", reason)));
  $("reasons").hidden = s.ready;
  const c = s.component;
  if (!c) {
    put("ticket", "–"); put("ticket-note", say("noComponent"));
    put("component", "–"); put("component-note", say("noComponent"));
  } else {
    const none = c.ticket_age === null;
    put("ticket", none ? say("ticketNone") : span(c.ticket_age), "value" + (none || c.ticket_age > 12 * 3600 ? " bad" : c.ticket_age > 1800 ? " warn" : ""));
    put("ticket-note", say(none ? "ticketNoneNote" : "ticketNote"));
    const left = c.token_expires_in;
    put("component", left === null ? say("tokenNone") : left <= 0 ? say("tokenOver") : say("left", span(left)), "value" + (left !== null && left <= 0 ? " warn" : ""));
    put("component-note", c.appid);
  }
  put("counts", say("counts", s.accounts.active), "value" + (s.accounts.failing ? " warn" : ""));
  put("counts-note", say("countsNote", [s.accounts.failing, s.accounts.revoked, s.accounts.forgotten]));
  const q = s.events;
  put("queue", q ? say("queued", q.waiting) : "–", "value" + (q && (q.dead || q.oldest > 600) ? " warn" : ""));
  put("queue-note", !q ? "" : q.oldest === null ? say("queueNone", q) : say("queueNote", { dead: q.dead, oldest: span(q.oldest) }));
  put("uptime", span(s.uptime));
  put("store", say("store", s.store) + " · " + s.go_version);
}

// tokenOf says when the token of an account expires.
function tokenOf(a) {
  if (a.expires_in === undefined || !a.token_fingerprint) return say("none");
  return a.expires_in > 0 ? say("in", span(a.expires_in)) : say("over", span(a.expires_in));
}

// row creates the table row of an account.
function row(a) {
  const tr = make("tr");
  tr.append(make("td", a.appid, "mono"));
  const name = make("td", a.name || "–", "name");
  name.title = a.name || "";
  tr.append(name, make("td", typeOf(a)));
  const state = make("td");
  state.append(make("span", say(a.state), "pill " + a.state));
  if (a.failure) state.append(make("span", a.failure, "why"));
  const token = make("td", tokenOf(a));
  token.title = a.token_fingerprint || "";
  tr.append(state, token, make("td", a.authorized ? say("ago", span(since(a.authorized))) : "–"));
  const actions = make("td", undefined, "actions");
  const renew = make("button", say("refresh")), forget = make("button", say("forget"), "danger");
  renew.type = forget.type = "button";
  renew.dataset.key = a.appid + "-renew";
  forget.dataset.key = a.appid + "-forget";
  forget.disabled = a.kind !== "authorizer" || a.state === "forgotten";
  renew.onclick = () => act(renew, () => ask("/api/accounts/" + a.appid + "/refresh", "POST"), say("refreshed", a.appid));
  forget.onclick = async () => {
    const subject = a.name ? a.appid + "  " + a.name : a.appid;
    if (await agreed(say("forgetTitle"), subject, say("forgetText"), say("forget"))) act(forget, () => ask("/api/accounts/" + a.appid, "DELETE"), say("wasForgotten", a.appid));
  };
  actions.append(renew, forget);
  tr.append(actions);
  return tr;
}

// agreed asks for confirmation in a dialog. Closing the dialog means no.
function agreed(title, subject, text, yes) {
  const dialog = $("ask");
  put("ask-title", title); put("ask-subject", subject); put("ask-text", text); put("ask-yes", yes);
  dialog.setAttribute("aria-label", title);
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}

// act runs an operation with its button disabled, shows the result, and reloads.
// done is a text, or a function of the response that returns one.
async function act(button, what, done) {
  button.disabled = true;
  try {
    const answer = await what();
    toast(typeof done === "string" ? done : done(answer));
  } catch (e) {
    toast(e.message, true);
  }
  button.disabled = false;
  update();
}

// fill replaces the rows of a table and keeps the keyboard focus.
function fill(id, rows) {
  const focused = document.activeElement?.dataset.key;
  $(id).replaceChildren(...rows);
  if (focused) document.querySelector(`[data-key="${focused}"]`)?.focus();
}

// showList fills the table from lastList.
function showList() {
  const l = lastList;
  if (!l) return;
  put("total", say(search || state ? "found" : "total", l.total));
  fill("rows", l.accounts.map(row));
  $("empty").hidden = l.accounts.length > 0;
  $("pages").hidden = l.total <= limit;
  put("range", l.accounts.length ? `${l.offset + 1}–${l.offset + l.accounts.length} / ${l.total}` : "");
  $("previous").disabled = l.offset === 0;
  $("next").disabled = l.offset + l.accounts.length >= l.total;
}

// Responses can arrive in another order than their requests. Only the one to the
// last request counts.
let asked = 0;
async function list() {
  const mine = ++asked;
  const got = await ask("/api/accounts?" + new URLSearchParams({ offset, limit, q: search, state }));
  if (mine !== asked) return;
  if (!got.accounts.length && offset > 0) { // the last account of the page was deleted
    offset = Math.max(0, Math.min(offset - limit, Math.floor((got.total - 1) / limit) * limit));
    return list();
  }
  lastList = got;
  showList();
}

// pathOf returns the path of an event, with its service as a query.
const pathOf = (e, verb = "") => "/api/events/" + encodeURIComponent(e.id) + verb + "?" + new URLSearchParams({ service: e.service });

// nextOf says when an event is tried next.
function nextOf(e) {
  if (!e.next) return "–";
  return since(e.next) > -1 ? say("now") : say("nextIn", span(since(e.next)));
}

// eventRow creates the table row of an event for a service.
function eventRow(e) {
  const tr = make("tr"), short = e.id.length > 14 ? e.id.slice(0, 12) + "…" : e.id;
  const id = make("td", short, "mono");
  id.title = e.id;
  const state = make("td");
  state.append(make("span", say(e.state), "pill " + e.state));
  if (e.error) state.append(make("span", e.error, "why"));
  tr.append(id, make("td", e.service), make("td", e.appid, "mono"), state, make("td", e.attempts), make("td", say("ago", span(since(e.created)))), make("td", nextOf(e)));
  const actions = make("td", undefined, "actions");
  const button = (name, className, what) => {
    const b = make("button", say(name), className);
    b.type = "button";
    b.dataset.key = `${e.id}-${e.service}-${name}`;
    b.setAttribute("aria-label", `${say(name)}: ${short} ${e.service}`);
    b.onclick = () => what(b);
    actions.append(b);
  };
  button("view", "", () => view(e));
  button("retry", "", (b) => act(b, () => ask(pathOf(e, "/retry"), "POST"), (answer) => say("retried", answer.retried)));
  button("drop", "danger", async (b) => {
    if (await agreed(say("dropTitle"), e.id + "  " + e.service, say("dropText"), say("drop"))) act(b, () => ask(pathOf(e), "DELETE"), (answer) => say("dropped", answer.dropped));
  });
  tr.append(actions);
  return tr;
}

// visible replaces characters that are not seen, or that change the direction of
// text, by their escapes.
const visible = (text) => text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g, (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"));

// view shows an event with its document, which a user may have written.
async function view(e) {
  let got;
  try {
    got = await ask(pathOf(e));
  } catch (error) {
    toast(error.message, true);
    return;
  }
  const dl = $("view-fields");
  dl.replaceChildren();
  const field = (name, text, mono) => { if (text) dl.append(make("dt", say("v_" + name)), make("dd", text, mono ? "mono" : "")); };
  field("id", got.id, true);
  field("kind", got.kind && visible(got.kind));
  field("account", got.appid, true);
  field("user", got.openid && visible(got.openid), true);
  field("pushed", `${got.created} (${say("ago", span(since(got.created)))})`);
  field("type", got.content_type);
  for (const d of got.deliveries) field("delivery", `${d.service}: ${say(d.state)}, ${say("tries")}: ${d.attempts}${d.error ? ", " + d.error : ""}`);
  put("document", got.document === null ? say("unreadable") : visible(got.document));
  $("document").scrollTop = 0;
  $("view").showModal();
}

// showEvents fills the table of events from lastEvents.
function showEvents() {
  const l = lastEvents;
  if (!l) return;
  $("events-trouble").hidden = !l.trouble;
  if (l.trouble) {
    put("events-trouble", l.trouble);
    return;
  }
  put("events-total", say(eventService || eventState ? "found" : "total", l.total));
  fill("event-rows", l.events.map(eventRow));
  $("events-empty").hidden = l.events.length > 0;
  $("event-pages").hidden = l.total <= limit;
  put("events-range", l.events.length ? `${l.offset + 1}–${l.offset + l.events.length} / ${l.total}` : "");
  $("events-previous").disabled = l.offset === 0;
  $("events-next").disabled = l.offset + l.events.length >= l.total;
}

// events reloads the table of events. A queue that does not respond shows there,
// and not in the place of the accounts.
let eventOffset = 0, eventService = "", eventState = "", askedEvents = 0;
async function events() {
  const mine = ++askedEvents;
  let got;
  try {
    got = await ask("/api/events?" + new URLSearchParams({ offset: eventOffset, limit, state: eventState, service: eventService }));
  } catch (e) {
    got = { trouble: e.message };
  }
  if (mine !== askedEvents) return;
  if (got.events && !got.events.length && eventOffset > 0) { // the last event of the page was delivered
    eventOffset = Math.max(0, Math.min(eventOffset - limit, Math.floor((got.total - 1) / limit) * limit));
    return events();
  }
  lastEvents = got;
  showEvents();
}

// update reloads status and lists.
async function update() {
  try {
    const [status] = await Promise.all([ask("/api/status"), list(), events()]);
    lastStatus = status;
    showStatus();
    $("trouble").hidden = true;
  } catch (e) {
    put("trouble", e.message);
    $("trouble").hidden = false;
  }
}

// showExplanation fills the result of the form below from lastExplanation.
function showExplanation() {
  const e = lastExplanation, dl = $("explanation");
  if (!e) return;
  dl.replaceChildren();
  dl.hidden = false;
  const add = (name, text, mono) => dl.append(make("dt", say("x_" + name)), make("dd", text, mono ? "mono" : ""));
  if (e.trouble) {
    add("answer", e.trouble);
    return;
  }
  add("call", e.method + " " + e.path + (e.appid ? "  (" + e.appid + ")" : ""), true);
  add("answer", e.refusal ? say("x_own", e.refusal.status) + ": " + e.refusal.error + (e.refusal.hint ? " – " + e.refusal.hint : "") : !e.forwarded_path ? "wxproxy" : say("x_forwarded") + (e.masked ? "; " + say("x_maskedText") : ""));
  add("credential", say("c_" + (e.parameter === "secret" ? "secret" : e.credential)) + (e.holder ? "  (" + e.holder + ")" : ""));
  if (e.parameter) add("parameter", e.parameter, true);
  if (e.adds) add("adds", e.adds.join(", "), true);
  if (e.removes) add("removes", e.removes.join(", "), true);
  if (e.forwarded_path && e.forwarded_path !== e.path) add("twin", e.forwarded_path, true);
  add("rule", say("r_" + e.rule.source, e.rule.path));
  if (e.account) {
    add("account", [e.account.name, typeOf(e.account), say(e.account.state)].filter(Boolean).join(" · "));
    add("token", (e.account.token_fingerprint ? e.account.token_fingerprint + " · " : "") + tokenOf(e.account));
  }
  if (e.caller) add("caller", say(e.caller.allowed ? "x_may" : "x_mayNot", e.caller.name) + ": " + e.caller.reason);
  if (e.note) add("note", e.note);
}

$("explain").onsubmit = async (event) => {
  event.preventDefault();
  const q = new URLSearchParams();
  for (const [name, value] of new FormData(event.target)) if (value.trim()) q.set(name, value.trim());
  try {
    lastExplanation = await ask("/api/explain?" + q);
  } catch (e) {
    lastExplanation = { trouble: e.message };
  }
  showExplanation();
};

$("sync").onclick = async () => {
  const button = $("sync");
  button.disabled = true;
  button.textContent = say("syncing");
  try {
    toast(say("synced", await ask("/api/sync", "POST")));
  } catch (e) {
    toast(e.message, true);
  }
  button.disabled = false;
  button.textContent = say("sync");
  update();
};

let typing = 0;
$("search").oninput = () => {
  clearTimeout(typing);
  typing = setTimeout(() => {
    search = $("search").q.value.trim();
    state = $("search").state.value;
    offset = 0;
    update();
  }, 200);
};
$("search").onsubmit = (event) => event.preventDefault();
let filtering = 0;
$("event-filter").oninput = () => {
  clearTimeout(filtering);
  filtering = setTimeout(() => {
    const form = $("event-filter");
    if (!form.checkValidity()) return;
    eventService = form.service.value.trim();
    eventState = form.state.value;
    eventOffset = 0;
    events();
  }, 200);
};
$("event-filter").onsubmit = (event) => event.preventDefault();
$("events-previous").onclick = () => { eventOffset = Math.max(0, eventOffset - limit); events(); };
$("events-next").onclick = () => { eventOffset += limit; events(); };
$("retry-all").onclick = async () => {
  const query = new URLSearchParams({ state: "dead", service: eventService });
  if (await agreed(say("retryTitle"), eventService || say("allServices"), say("retryText"), say("retry"))) act($("retry-all"), () => ask("/api/events/retry?" + query, "POST"), (answer) => say("retried", answer.retried));
};
$("previous").onclick = () => { offset = Math.max(0, offset - limit); update(); };
$("next").onclick = () => { offset += limit; update(); };

// translate shows the page in the chosen language.
function translate() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  put("language", language === "zh" ? "English" : "中文");
  $("language").lang = language === "zh" ? "en" : "zh";
  for (const e of document.querySelectorAll("[data-t]")) e.textContent = say(e.dataset.t);
  for (const e of document.querySelectorAll("[data-t-label]")) e.setAttribute("aria-label", say(e.dataset.tLabel));
  for (const e of document.querySelectorAll("[data-t-hint]")) e.placeholder = say(e.dataset.tHint);
  showStatus();
  showList();
  showEvents();
  showExplanation();
}
$("language").onclick = () => { language = language === "zh" ? "en" : "zh"; translate(); };

translate();
update();
setInterval(() => { if (!document.hidden && !document.querySelector("dialog[open]")) update(); }, 10000);
