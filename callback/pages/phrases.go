package pages

// phrases are what the pages say, in one language. What stands in braces is put in.
type phrases struct {
	Lang    string // of the document
	Account string

	Title, Lead                   string
	PhoneTitle, PhoneScan         string
	PhoneTap, PhoneButton         string
	QRLabel                       string
	PCTitle, PCText, PCButton     string
	NoteAdmin, NoteChoice, NoteIn string

	again, tryAgain string

	welcome, welcomeText string
	robot, robotText     string

	badLink, badType, badAccount, badCategories, badState, badReturn, badQuery, badAdvice string

	tooMany, tooManyText           string
	notSetUp, noPublicURL          string
	notReady, notReadyText         string
	notReadyCode                   string
	refused, refusedText           string
	noCode, noCodeText             string
	used, usedText                 string
	expired, expiredText           string
	withdrawn, withdrawnText       string
	bound, boundText               string
	frozen, frozenText             string
	defect, defectText, defectCode string
}

var phrasesOf = map[string]*phrases{
	"zh": {
		Lang: "zh-CN", Account: "账号",
		Title:      "授权您的微信账号",
		Lead:       "授权后，我们即可代您管理公众号、小程序等账号。授权在微信的官方页面上完成，我们不会得到您的密码。",
		PhoneTitle: "在手机上授权", PhoneScan: "请账号管理员打开微信，用“扫一扫”扫描二维码。", PhoneTap: "请在微信中打开本页，并使用账号管理员的微信。", PhoneButton: "在微信中授权",
		QRLabel: "手机授权链接的二维码",
		PCTitle: "在电脑上授权", PCText: "打开微信的授权页面，由管理员在那里扫码并选择账号。", PCButton: "前往微信授权页面",
		NoteAdmin: "须由账号管理员本人确认。", NoteChoice: "授予哪些权限，由您在微信的页面上决定；授权可随时在微信公众平台取消。", NoteIn: "链接在 {} 分钟内有效，过期请刷新本页。",
		again: "重新授权", tryAgain: "重试",
		welcome: "授权成功", welcomeText: "我们已可为您的账号提供服务。您可以关闭本页。",
		robot: "微信账号授权", robotText: "请在浏览器中打开本页。",
		badLink: "链接有误", badType: "链接中的 type 无效，应为 1、2、3、4、5、6 或 8。", badAccount: "链接中的 biz_appid 不是 AppID。",
		badCategories: "链接中的 category_ids 应为以 | 分隔的数字。", badState: "链接中的 state 过长，最多 512 字节。",
		badReturn: "链接中的 return_to 不是允许的返回地址。", badQuery: "链接中的参数无法读取，或重复出现。", badAdvice: "请向提供链接的人索取新的链接。",
		tooMany: "请稍候", tooManyText: "打开次数过多，请在 {} 秒后刷新本页。",
		notSetUp: "授权页面尚未配置", noPublicURL: "请运维人员在配置文件的 [callback] 中设置 public_url，即互联网访问本服务的地址，例如 https://wx.example.com。",
		notReady: "暂时无法连接微信", notReadyText: "这通常很快恢复。请在一分钟后刷新本页。", notReadyCode: "您的授权没有丢失。请在一分钟后刷新本页。",
		refused: "微信拒绝了请求", refusedText: "错误码 {}。请将它告知我们的客服。",
		noCode: "没有收到授权", noCodeText: "本页应由微信在授权完成后打开。请重新授权。",
		used: "授权码已使用", usedText: "如果账号已经可以使用，无需再做什么；否则请重新授权。",
		expired: "授权码已过期", expiredText: "授权后停留太久了。请重新授权。",
		withdrawn: "授权已取消", withdrawnText: "该账号的授权已在微信中取消。如仍需使用，请重新授权。",
		bound: "账号已经授权", boundText: "该账号此前已授权给我们，无需再做什么。",
		frozen: "账号受限", frozenText: "该账号已被微信限制、冻结或注销，无法授权。请先在微信公众平台处理，再重新授权。",
		defect: "出错了", defectText: "这是我们的问题，已经记录。请稍后重试。", defectCode: "这是我们的问题，已经记录。请稍后刷新本页。",
	},
	"en": {
		Lang: "en", Account: "Account",
		Title:      "Authorize your WeChat account",
		Lead:       "Allow us to look after your Official Account or Mini Program. You confirm on WeChat’s own pages; we never see your password.",
		PhoneTitle: "On your phone", PhoneScan: "Have the account’s administrator open WeChat, tap “Scan”, and point it at the code.", PhoneTap: "Open this page inside WeChat, signed in as the account’s administrator.", PhoneButton: "Authorize in WeChat",
		QRLabel: "QR code of the link for phones",
		PCTitle: "On a computer", PCText: "Open WeChat’s page, where the administrator scans a code and chooses the account.", PCButton: "Go to WeChat",
		NoteAdmin: "Only the account’s administrator can confirm.", NoteChoice: "You choose the permissions on WeChat’s page, and can withdraw them there at any time.", NoteIn: "These links are good for {} minutes. If they have expired, reload this page.",
		again: "Authorize again", tryAgain: "Try again",
		welcome: "Authorized", welcomeText: "Your account is connected. You can close this page.",
		robot: "Authorize a WeChat account", robotText: "Please open this page in a browser.",
		badLink: "This link is not right", badType: "Its type must be 1, 2, 3, 4, 5, 6 or 8.", badAccount: "Its biz_appid is no AppID.",
		badCategories: "Its category_ids must be numbers joined by “|”.", badState: "Its state is longer than 512 bytes.",
		badReturn: "Its return_to is not an address that merchants may be sent back to.", badQuery: "Its parameters cannot be read, or are repeated.", badAdvice: "Please ask whoever gave it to you for a new one.",
		tooMany: "One moment, please", tooManyText: "This page was opened too often. Reload it in {} seconds.",
		notSetUp: "This page is not set up yet", noPublicURL: "Operators: set public_url in [callback] of the configuration to the address at which the internet reaches this service, such as https://wx.example.com.",
		notReady: "WeChat cannot be reached right now", notReadyText: "This usually passes quickly. Reload this page in a minute.", notReadyCode: "Your authorization is not lost. Reload this page in a minute.",
		refused: "WeChat refused the request", refusedText: "It answered error {}. Please tell our support.",
		noCode: "No authorization arrived", noCodeText: "WeChat opens this page once an authorization is complete. Please authorize again.",
		used: "This authorization was used already", usedText: "If the account works, there is nothing left to do. Otherwise authorize again.",
		expired: "This authorization has expired", expiredText: "Too much time passed after you confirmed. Please authorize again.",
		withdrawn: "The authorization was withdrawn", withdrawnText: "It was canceled in WeChat. To use the account here, authorize again.",
		bound: "This account is connected already", boundText: "It was authorized before. There is nothing left to do.",
		frozen: "This account is restricted", frozenText: "WeChat has limited, frozen or closed it, so it cannot be authorized. Settle that with WeChat first, then authorize again.",
		defect: "Something went wrong", defectText: "The fault is ours, and it was noted. Please try again later.", defectCode: "The fault is ours, and it was noted. Please reload this page later.",
	},
}
