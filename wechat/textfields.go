package wechat

import "strings"

// textField is a field of a push that holds what a user typed, or text that can
// quote it. WeChat writes such text into a CDATA section and escapes nothing in
// it, so the text can hold end tags and other fields. [readLenient] finds out
// where it ends.
type textField struct {
	path string // names of the elements below the root, separated by "/"

	// preferFirst is set for a text that is chosen by an operator, not by a
	// user. If the field could end at several end tags, it ends at the first.
	// All others end at the last.
	preferFirst bool
}

// textFields are the fields that hold a user's text. Their names come from
// WeChat's documentation, below doc/ if not said otherwise:
//
//   - messages (offiaccount/Message_Management/Receiving_standard_messages,
//     miniprogram/dev/framework/server-ability/message-push): Content of a
//     text, Title, Description and Url of a link, Title and Description of a
//     file, Title and PagePath of a mini program's card, Label of a location,
//     Recognition of what was spoken
//   - events (offiaccount/Message_Management/Receiving_event_pushes,
//     offiaccount/Custom_Menus/Custom_Menu_Push_Events): EventKey, which an
//     operator chose for a menu or a QR code; the text of a scanned code, and
//     the name of a chosen place
//   - the session of a customer message (SessionFrom, chosen by a mini
//     program), a scanned bar code (KeyStr, ExtInfo), remarks and sources of
//     cards (OuterStr, Remark)
//   - results of checks by people, which quote what was checked
//     (oplatform/Third-party_Platforms/2.0/api/code/audit_event, for mini
//     programs, offiaccount/Message_Management/Receiving_event_pushes for the
//     verification of accounts): nickname, reason, Reason, FailReason,
//     ReasonMsg
//   - registrations and verifications on the address of authorization events
//     (oplatform/Third-party_Platforms/2.0/api/Register_Mini_Programs):
//     msg, message, and the names of a company and of persons in info
//
// The same name elsewhere in a document, such as reason in a list, is like any
// other element.
var textFields = []textField{
	{path: "Content"}, {path: "Title"}, {path: "Description"}, {path: "Url"},
	{path: "PagePath"}, {path: "Label"}, {path: "Recognition"},
	{path: "EventKey", preferFirst: true}, {path: "ScanCodeInfo/ScanResult"},
	{path: "SendLocationInfo/Label"}, {path: "SendLocationInfo/Poiname"},
	{path: "SessionFrom"}, {path: "KeyStr"}, {path: "ExtInfo"},
	{path: "OuterStr"}, {path: "Remark"}, {path: "debug_str"},
	{path: "nickname"}, {path: "NickName"}, {path: "Nickname"},
	{path: "reason"}, {path: "Reason"}, {path: "FailReason"}, {path: "ReasonMsg"},
	{path: "msg"}, {path: "message"},
	{path: "info/name"}, {path: "info/legal_persona_wechat"},
	{path: "info/legal_persona_name"}, {path: "info/wxuser"}, {path: "info/idname"},
}

// textFieldsByPath and textPathsByName index textFields; a name is the last one
// of a path.
var textFieldsByPath, textPathsByName = indexTextFields()

func indexTextFields() (map[string]textField, map[string][]string) {
	byPath, byName := make(map[string]textField), make(map[string][]string)
	for _, f := range textFields {
		byPath[f.path] = f
		name := f.path[strings.LastIndexByte(f.path, '/')+1:]
		byName[name] = append(byName[name], f.path)
	}
	return byPath, byName
}

// onceFields are the fields that WeChat writes at most once below the root. If
// one stands there twice, a text has added it.
var onceFields = []string{
	"ToUserName", "FromUserName", "CreateTime", "MsgType", "Event", "MsgId",
	"InfoType", "AppId",
}
