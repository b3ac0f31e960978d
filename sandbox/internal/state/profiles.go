package state

import (
	"encoding/json"
	"slices"
	"sync"
	"unicode/utf8"
)

// Tag is a label for followers.
type Tag struct {
	ID    int    `json:"id"`
	Name  string `json:"name"`
	Count int    `json:"count"`
}

const (
	maxTags       = 100 // WeChat's limit
	maxTagName    = 30  // characters
	firstTagID    = 100 // WeChat has reserved the IDs below
	firstAuditID  = 400_000_001
	defaultOption = "0"
)

// profile holds what requests stored for one account.
type profile struct {
	options   map[string]string
	privacy   json.RawMessage // nil before the first setting
	menu      json.RawMessage // nil if there is no menu
	tags      []Tag
	lastTag   int
	committed bool // code was committed
	auditID   int  // of the last audit, 0 if none was requested
}

// Profiles holds what requests stored for each account: options, menus, tags,
// releases. The zero value is ready to use. It is safe for concurrent use.
type Profiles struct {
	mu      sync.Mutex // guards everything below
	byAppID map[string]*profile
}

// of returns the profile of that account. The caller holds p.mu.
func (p *Profiles) of(appid string) *profile {
	a := p.byAppID[appid]
	if a == nil {
		if p.byAppID == nil {
			p.byAppID = make(map[string]*profile)
		}
		a = &profile{}
		p.byAppID[appid] = a
	}
	return a
}

// Option returns the value of an option, "0" before it is set.
func (p *Profiles) Option(appid, name string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if v, set := p.of(appid).options[name]; set {
		return v
	}
	return defaultOption
}

// SetOption sets an option. It accepts any name and value.
func (p *Profiles) SetOption(appid, name, value string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.of(appid)
	if a.options == nil {
		a.options = make(map[string]string)
	}
	a.options[name] = value
}

// Privacy returns the privacy setting as it was set, nil before that. It must
// not be changed.
func (p *Profiles) Privacy(appid string) json.RawMessage {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.of(appid).privacy
}

// SetPrivacy keeps a privacy setting. The caller must not change it afterwards.
func (p *Profiles) SetPrivacy(appid string, setting json.RawMessage) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.of(appid).privacy = setting
}

// Menu returns the menu as it was set, nil if there is none. It must not be
// changed.
func (p *Profiles) Menu(appid string) json.RawMessage {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.of(appid).menu
}

// SetMenu keeps a menu; nil deletes it. The caller must not change it
// afterwards.
func (p *Profiles) SetMenu(appid string, menu json.RawMessage) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.of(appid).menu = menu
}

// Tags returns a copy of the account's tags. It is never nil.
func (p *Profiles) Tags(appid string) []Tag {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]Tag{}, p.of(appid).tags...)
}

// AddTag creates a tag. The errcode is 45157 for a name that is empty, too long
// or in use, and 45056 if there are too many tags.
func (p *Profiles) AddTag(appid, name string) (Tag, int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.of(appid)
	switch {
	case name == "" || utf8.RuneCountInString(name) > maxTagName,
		slices.ContainsFunc(a.tags, func(t Tag) bool { return t.Name == name }):
		return Tag{}, 45157
	case len(a.tags) >= maxTags:
		return Tag{}, 45056
	}
	t := Tag{ID: firstTagID + a.lastTag, Name: name}
	a.lastTag++
	a.tags = append(a.tags, t)
	return t, 0
}

// DeleteTag deletes a tag, and reports whether there was one.
func (p *Profiles) DeleteTag(appid string, id int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.of(appid)
	n := len(a.tags)
	a.tags = slices.DeleteFunc(a.tags, func(t Tag) bool { return t.ID == id })
	return len(a.tags) < n
}

// Commit records that the mini program has code.
func (p *Profiles) Commit(appid string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.of(appid).committed = true
}

// Committed reports whether the mini program has code.
func (p *Profiles) Committed(appid string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.of(appid).committed
}

// SubmitAudit returns the ID of a new audit; ok is false if there is no code.
// The audit has passed at once.
func (p *Profiles) SubmitAudit(appid string) (id int, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.of(appid)
	if !a.committed {
		return 0, false
	}
	if a.auditID++; a.auditID == 1 {
		a.auditID = firstAuditID
	}
	return a.auditID, true
}

// LatestAudit returns the ID of the last audit, 0 if none was requested.
func (p *Profiles) LatestAudit(appid string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.of(appid).auditID
}
