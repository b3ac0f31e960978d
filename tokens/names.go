package tokens

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"wxproxy/tokens/store"
)

// IsAddressee reports whether a message to userName may be for appid. userName
// is the original id of an account (gh_…), as messages name it inside.
//
// It returns false if userName is known to be another account's: WeChat says so
// (api_get_authorizer_info), or, for accounts about which WeChat could not be
// asked, another account was the first to get a message with this name. It asks
// WeChat about appid if its name is not known yet, and waits a second at most.
//
// Its errors are those of the store and the one of ctx: then nothing is known
// about userName.
func (b *Broker) IsAddressee(ctx context.Context, appid, userName string) (bool, error) {
	return b.names.isAddressee(ctx, appid, userName)
}

// names knows which account has which original id. It is safe for concurrent
// use.
//
// A message does not prove its address: the appid is in the path alone,
// which is not signed. So the first account that gets a message with an unknown
// name keeps that name only until WeChat says whose it is. A third party that
// sends a message of account A to B first can pin A's name to B for as long as
// WeChat cannot be asked, and no longer.
type names struct {
	store    store.Store
	accounts *accounts
	tasks    *taskGroup
	now      func() time.Time
	log      *slog.Logger

	// readProfile reads an account's name from WeChat, and calls learn.
	readProfile func(ctx context.Context, appid string) error
	// enqueue does the same later.
	enqueue func(appid string)

	flights  singleflight.Group
	inFlight chan struct{} // a slot for each question

	mu     sync.Mutex
	owners map[string]string    // appid by name, as the store has it
	asked  map[string]time.Time // next question about an account, by appid
}

const (
	// maxNameLength bounds the names that are looked at, in bytes. Original ids
	// have 15.
	maxNameLength = 64
	// maxCachedNames bounds owners, to some 10 MB.
	maxCachedNames = 100_000
	// maxNameQuestions bounds the questions in flight. Accounts beyond that are
	// asked about later.
	maxNameQuestions = 4
	// nameAskPause is the least time between two questions about one account.
	// Only accounts whose name is not known are asked about.
	nameAskPause = time.Minute
	// nameTimeout is how long a message waits for WeChat: WeChat waits for the
	// reply to it.
	nameTimeout = time.Second
)

func nameKey(userName string) string { return namePrefix + userName }

// nameRecord holds which account has a name.
type nameRecord struct {
	recordFormat
	AppID string `json:"appid"`
	// Learned is set if WeChat said so. Otherwise the name was pinned by the
	// first message.
	Learned bool `json:"learned,omitempty"`
}

func (n *names) isAddressee(ctx context.Context, appid, userName string) (bool, error) {
	if !isOriginalID(userName) {
		return true, nil
	}
	n.mu.Lock()
	owner, known := n.owners[userName]
	n.mu.Unlock()
	if known && owner == appid {
		return true, nil
	}
	// Other processes learn names, too: only the store says that it is not.
	rec, err := n.load(ctx, userName)
	if err != nil || rec != nil && (rec.AppID == appid || rec.Learned) {
		return err == nil && rec.AppID == appid, err
	}
	acc, err := n.account(ctx, appid)
	switch {
	case err != nil:
		return false, err
	case acc == nil || acc.UserName == "":
		return n.pin(ctx, appid, userName)
	case acc.UserName == userName:
		// Learned just now. Or the record of the name was lost.
		return true, n.learn(ctx, appid, userName)
	}
	// The account has another name, and this one is pinned at most: whatever
	// WeChat means by it, it is not known to be another account's.
	return rec == nil, nil
}

// account returns the record of appid, or nil if there is none. If the account
// has no name yet, it asks WeChat first.
func (n *names) account(ctx context.Context, appid string) (*account, error) {
	acc, err := n.accounts.load(ctx, appid)
	if err != nil || acc == nil || acc.UserName != "" || acc.IsRevoked ||
		acc.Kind != Authorizer.String() {
		return acc, err
	}
	n.ask(ctx, appid)
	return n.accounts.load(ctx, appid)
}

// isOriginalID reports whether a name that a message has inside can be the
// original id of an account.
func isOriginalID(userName string) bool {
	return strings.HasPrefix(userName, "gh_") && len(userName) <= maxNameLength
}

// load returns the record of a name, or nil if there is none.
func (n *names) load(ctx context.Context, userName string) (*nameRecord, error) {
	rec, err := loadRecord[nameRecord](ctx, n.store, nameKey(userName))
	if err == nil && rec != nil {
		n.cache(userName, rec.AppID)
	}
	return rec, err
}

func (n *names) cache(userName, appid string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.owners) >= maxCachedNames {
		clear(n.owners)
	}
	n.owners[userName] = appid
}

// changed forgets what is cached of a name that some process has changed. ""
// forgets all names.
func (n *names) changed(userName string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if userName == "" {
		clear(n.owners)
	}
	delete(n.owners, userName)
}

// pin notes that the name is appid's, unless it is known to be another's, and
// reports whether it is appid's.
func (n *names) pin(ctx context.Context, appid, userName string) (bool, error) {
	owner := ""
	fn := func(rec *nameRecord) (*nameRecord, error) {
		if rec != nil {
			owner = rec.AppID
			return nil, nil
		}
		owner = appid
		return &nameRecord{recordFormat: currentFormat, AppID: appid}, nil
	}
	if err := changeRecord(ctx, n.store, nameKey(userName), fn); err != nil {
		return false, storeError(err)
	}
	n.cache(userName, owner)
	return owner == appid, nil
}

// learn notes that WeChat says that the name is appid's. That overrides what
// was known before.
func (n *names) learn(ctx context.Context, appid, userName string) error {
	if !isOriginalID(userName) {
		return nil
	}
	known, err := n.load(ctx, userName)
	if err != nil || known != nil && known.Learned && known.AppID == appid {
		return err
	}
	fn := func(rec *nameRecord) (*nameRecord, error) {
		if rec != nil && rec.AppID != appid {
			n.log.Warn("messages of an account were sent to the path of another one",
				"account", appid, "other_account", rec.AppID)
		}
		return &nameRecord{recordFormat: currentFormat, AppID: appid, Learned: true}, nil
	}
	if err := changeRecord(ctx, n.store, nameKey(userName), fn); err != nil {
		return storeError(err)
	}
	n.cache(userName, appid)
	return nil
}

// ask learns the name of appid from WeChat, and waits a second at most. It does
// nothing if that was tried a short while ago.
func (n *names) ask(ctx context.Context, appid string) {
	ctx, cancel := context.WithTimeout(ctx, nameTimeout)
	defer cancel()
	done := n.flights.DoChan(appid, func() (any, error) {
		select {
		case n.inFlight <- struct{}{}:
			defer func() { <-n.inFlight }()
		default:
			n.enqueue(appid)
			return nil, nil
		}
		n.mu.Lock()
		due := remember(n.asked, appid, n.now(), nameAskPause)
		n.mu.Unlock()
		if !due {
			return nil, nil
		}
		err := n.tasks.run(n.tasks.background, taskTimeout, func(ctx context.Context) error {
			return n.readProfile(ctx, appid)
		})
		if err != nil {
			n.log.Debug("reading an account's name failed", "account", appid, "error", err)
		}
		return nil, nil
	})
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// forget deletes a name of appid.
func (n *names) forget(ctx context.Context, appid, userName string) error {
	if userName == "" {
		return nil
	}
	defer n.changed(userName)
	return deleteRecord(ctx, n.store, nameKey(userName), func(rec *nameRecord) bool {
		return rec.AppID == appid
	})
}

// IsAnothers reports whether userName is the original id of another account
// than appid, as WeChat says. Unlike [Broker.IsAddressee], it asks only the
// store, and concludes nothing.
//
// Its errors are those of the store and the one of ctx.
func (b *Broker) IsAnothers(ctx context.Context, appid, userName string) (bool, error) {
	if !isOriginalID(userName) {
		return false, nil
	}
	rec, err := b.names.load(ctx, userName)
	return err == nil && rec != nil && rec.Learned && rec.AppID != appid, err
}
