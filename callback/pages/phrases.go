package pages

// phrases holds the texts of the pages in one language. "{}" stands for a
// number that [insert] puts there.
type phrases struct {
	Lang    string // language tag of the HTML document
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
	revoked, revokedText           string
	bound, boundText               string
	frozen, frozenText             string
	defect, defectText, defectCode string
}

// phrasesByLanguage holds the texts by the results of [chooseLanguage].
var phrasesByLanguage = map[string]*phrases{
	"zh": {
		Lang:          "zh-CN",
		Account:       "账号",
		Title:         "授权您的微信账号",
		Lead:          "授权后，我们即可代您管理公众号、小程序等账号。授权在微信的官方页面上完成，我们不会得到您的密码。",
		PhoneTitle:    "在手机上授权",
		PhoneScan:     "请账号管理员打开微信，用“扫一扫”扫描二维码。",
		PhoneTap:      "请在微信中打开本页，并使用账号管理员的微信。",
		PhoneButton:   "在微信中授权",
		QRLabel:       "手机授权链接的二维码",
		PCTitle:       "在电脑上授权",
		PCText:        "打开微信的授权页面，由管理员在那里扫码并选择账号。",
		PCButton:      "前往微信授权页面",
		NoteAdmin:     "须由账号管理员本人确认。",
		NoteChoice:    "授予哪些权限，由您在微信的页面上决定；授权可随时在微信公众平台取消。",
		NoteIn:        "链接在 {} 分钟内有效，过期请刷新本页。",
		again:         "重新授权",
		tryAgain:      "重试",
		welcome:       "授权成功",
		welcomeText:   "我们已可为您的账号提供服务。您可以关闭本页。",
		robot:         "微信账号授权",
		robotText:     "请在浏览器中打开本页。",
		badLink:       "链接有误",
		badType:       "链接中的 type 无效，应为 1、2、3、4、5、6 或 8。",
		badAccount:    "链接中的 biz_appid 不是 AppID。",
		badCategories: "链接中的 category_ids 应为以 | 分隔的数字。",
		badState:      "链接中的 state 过长，最多 512 字节。",
		badReturn:     "链接中的 return_to 不是允许的返回地址。",
		badQuery:      "链接中的参数无法读取，或重复出现。",
		badAdvice:     "请向提供链接的人索取新的链接。",
		tooMany:       "请稍候",
		tooManyText:   "打开次数过多，请在 {} 秒后刷新本页。",
		notSetUp:      "授权页面尚未配置",
		noPublicURL:   "请运维人员在配置文件的 [callback] 中设置 public_url，即互联网访问本服务的地址，例如 https://wx.example.com。",
		notReady:      "暂时无法连接微信",
		notReadyText:  "这通常很快恢复。请在一分钟后刷新本页。",
		notReadyCode:  "您的授权没有丢失。请在一分钟后刷新本页。",
		refused:       "微信拒绝了请求",
		refusedText:   "错误码 {}。请将它告知我们的客服。",
		noCode:        "没有收到授权",
		noCodeText:    "本页应由微信在授权完成后打开。请重新授权。",
		used:          "授权码已使用",
		usedText:      "如果账号已经可以使用，无需再做什么；否则请重新授权。",
		expired:       "授权码已过期",
		expiredText:   "授权后停留太久了。请重新授权。",
		revoked:       "授权已取消",
		revokedText:   "该账号的授权已在微信中取消。如仍需使用，请重新授权。",
		bound:         "账号已经授权",
		boundText:     "该账号此前已授权给我们，无需再做什么。",
		frozen:        "账号受限",
		frozenText:    "该账号已被微信限制、冻结或注销，无法授权。请先在微信公众平台处理，再重新授权。",
		defect:        "出错了",
		defectText:    "这是我们的问题，已经记录。请稍后重试。",
		defectCode:    "这是我们的问题，已经记录。请稍后刷新本页。",
	},
	"en": {
		Lang:    "en",
		Account: "Account",
		Title:   "Authorize your WeChat account",
		Lead: "Allow us to manage your Official Account or Mini Program. You confirm this on " +
			"WeChat’s own pages, and we never see your password.",
		PhoneTitle:  "On your phone",
		PhoneScan:   "Ask the account’s administrator to open WeChat, tap “Scan” and scan this code.",
		PhoneTap:    "Open this page in WeChat, signed in as the account’s administrator.",
		PhoneButton: "Authorize in WeChat",
		QRLabel:     "QR code of the authorization link for phones",
		PCTitle:     "On a computer",
		PCText:      "Open WeChat’s page. The administrator scans a code there and chooses the account.",
		PCButton:    "Go to WeChat",
		NoteAdmin:   "Only the account’s administrator can confirm.",
		NoteChoice: "You choose the permissions on WeChat’s page and can revoke them there at any " +
			"time.",
		NoteIn:        "These links expire in {} minutes. Reload this page to get new ones.",
		again:         "Authorize again",
		tryAgain:      "Try again",
		welcome:       "Authorized",
		welcomeText:   "Your account is connected. You can close this page.",
		robot:         "Authorize a WeChat account",
		robotText:     "Please open this page in a browser.",
		badLink:       "This link is not valid",
		badType:       "Its type parameter must be 1, 2, 3, 4, 5, 6 or 8.",
		badAccount:    "Its biz_appid parameter is not an AppID.",
		badCategories: "Its category_ids parameter must be numbers separated by “|”.",
		badState:      "Its state parameter is longer than 512 bytes.",
		badReturn:     "Its return_to parameter is not an allowed return address.",
		badQuery:      "Its parameters cannot be read, or one is repeated.",
		badAdvice:     "Please ask for a new link.",
		tooMany:       "One moment, please",
		tooManyText:   "This page was opened too often. Reload it in {} seconds.",
		notSetUp:      "This page is not set up yet",
		noPublicURL: "If you operate this service, set public_url in the [callback] section of the " +
			"configuration to the address at which the internet reaches it, such as " +
			"https://wx.example.com.",
		notReady:     "WeChat cannot be reached right now",
		notReadyText: "This usually passes quickly. Reload this page in a minute.",
		notReadyCode: "Your authorization is not lost. Reload this page in a minute.",
		refused:      "WeChat rejected the request",
		refusedText:  "WeChat responded with error {}. Please tell our support.",
		noCode:       "No authorization received",
		noCodeText: "WeChat opens this page when an authorization is complete. Please authorize " +
			"again.",
		used:        "This authorization was already used",
		usedText:    "If the account works, there is nothing left to do. Otherwise authorize again.",
		expired:     "This authorization has expired",
		expiredText: "Too much time passed after you confirmed. Please authorize again.",
		revoked:     "The authorization was revoked",
		revokedText: "It was canceled in WeChat. To use the account here, authorize again.",
		bound:       "This account is already connected",
		boundText:   "It was authorized before. There is nothing left to do.",
		frozen:      "This account is restricted",
		frozenText: "WeChat has limited, frozen or closed it, so it cannot be authorized. Resolve " +
			"this with WeChat first, then authorize again.",
		defect:     "Something went wrong",
		defectText: "The fault is ours, and it was logged. Please try again later.",
		defectCode: "The fault is ours, and it was logged. Please reload this page later.",
	},
}
