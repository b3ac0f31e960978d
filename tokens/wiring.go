package tokens

import (
	"context"
	"crypto/rand"
	"time"

	"wxproxy/tokens/store"
	"wxproxy/wechat"
)

// connect makes the parts of the Broker and gives each the functions of the
// others that it needs. Nothing runs yet, so the order does not matter for
// parts that are only used through a function.
func connect(b *Broker, c Config) {
	client, secrets := b.client.Load, b.secrets.Load
	b.accounts = &accounts{
		store: b.store, cache: b.cache, now: b.now, log: b.log, changed: c.Changed,
	}
	b.component = &componentAPI{
		appid: b.Component, client: client, tokens: b, rejected: b.governor.RejectedToken,
	}
	b.component.list = newListSearch(b.component.listPage, b.tasks, b.now)
	b.tickets = &tickets{
		store: b.store, accounts: b.accounts, secrets: secrets, client: client,
		now: b.now, weChat: &b.clocks.weChat, log: b.log,
	}
	b.reachability = &reachability{
		governor: b.governor, client: client, tasks: b.tasks, now: b.now, log: b.log,
	}
	connectRenewal(b, c)
	connectNames(b)
	connectExchange(b)
	connectMaintenance(b, c.MaintenanceInterval)
	b.signingKeys = &signingKeys{
		store: b.store, tasks: b.tasks, now: b.now, log: b.log, clockIsFarOff: b.clocks.farOff,
	}
	b.lister = &lister{store: b.store, kind: b.Kind, now: b.now}
	b.stats = &Stats{
		component: b.Component, tickets: b.tickets, accounts: b.accounts, cache: b.cache,
		tasks: b.tasks, store: b.store, governor: b.governor,
		earlyRenewer: b.earlyRenewer, now: b.now,
		clocks:  b.clocks,
		counter: &stateCounter{store: b.store, tasks: b.tasks, now: b.now},
		syncer:  b.syncer,
		damaged: &damagedCounter{store: c.Store, tasks: b.tasks, now: b.now},
	}
}

// connectRenewal makes the parts that get new tokens for known accounts.
func connectRenewal(b *Broker, c Config) {
	b.profiler = &profiler{
		accounts: b.accounts, component: b.component, tasks: b.tasks, now: b.now, log: b.log,
		queue: make(chan string, profileQueueSize),
	}
	fetcher := &fetcher{
		secrets: b.secrets.Load, client: b.client.Load,
		component: b.component, tickets: b.tickets, log: b.log,
	}
	b.renewer = &renewer{
		accounts: b.accounts, cache: b.cache, tasks: b.tasks,
		renewBefore: c.RenewBefore, now: b.now, log: b.log, observer: c.Observer,
		kind:          b.Kind,
		clockIsFarOff: b.clocks.farOff,

		fetch: fetcher.fetch,
		checkGate: func(ctx context.Context, kind Kind, appid string) error {
			return gate{b.governor, b.clocks}.check(ctx, kind, appid, b.Component())
		},
		discover:   b.discover,
		unanswered: unanswered{now: b.now, accounts: map[string]unansweredRenewals{}},
		onFetch: func(appid string, acc *account) {
			// The process that fetched the token reads the name: one of all
			// replicas.
			if b.profiler.stale(acc) {
				b.profiler.enqueue(appid)
			}
		},
	}
	b.earlyRenewer = newEarlyRenewer(
		int(c.CacheSize), b.governor.EarlyShare(), b.now,
		func(appid string) error {
			_, err := b.renewer.token(context.Background(), appid, wechat.Secret{}, reasonDue)
			return err
		})
	// The two need each other: a renewal schedules the next one.
	b.renewer.schedule = b.earlyRenewer.schedule
}

// connectNames makes the part that knows the original ids of accounts. It and
// the profiler need each other.
func connectNames(b *Broker) {
	b.names = &names{
		store: b.store, accounts: b.accounts, tasks: b.tasks, now: b.now, log: b.log,
		readProfile: func(ctx context.Context, appid string) error {
			_, err := b.profiler.read(ctx, appid, nil)
			return err
		},
		enqueue:  b.profiler.enqueue,
		inFlight: make(chan struct{}, maxNameQuestions),
		owners:   map[string]string{},
		asked:    map[string]time.Time{},
	}
	b.profiler.learn = b.names.learn
	b.accounts.forgetName = b.names.forget
}

// connectExchange makes the parts that learn of accounts: from codes, and from
// what WeChat lists.
func connectExchange(b *Broker) {
	b.exchanger = &exchanger{
		store: b.store, accounts: b.accounts, component: b.component, tasks: b.tasks,
		now: b.now, log: b.log,
		onAuthorized: b.cacheAuthorization,
		epoch:        b.cache.epoch,
		attempts:     map[string]*exchangeAttempt{},
	}
	b.revalidator = newRevalidator(b.accounts, b.component, b.tasks, b.now, b.log)
	b.revalidator.renew = func(ctx context.Context, appid string, stale wechat.Secret) error {
		_, err := b.renewer.token(ctx, appid, stale, reasonRejected)
		return err
	}
	b.revalidator.sync = func(ctx context.Context) error {
		_, err := b.syncer.sync(ctx, "due", SyncOptions{})
		return err
	}
	b.revalidator.knowsAccounts = func(ctx context.Context) (bool, error) {
		return b.syncer.knowsAccounts(ctx)
	}
	b.renewer.recheck = b.revalidator.recheck
	b.syncer = &syncer{
		store: b.store, accounts: b.accounts, component: b.component, tasks: b.tasks,
		now: b.now, log: b.log,
		kind:  b.Kind,
		ready: b.componentTokenAvailable,

		deleteOldRecords: b.exchanger.deleteOldExchanged,
		id:               rand.Text(),
		running:          make(chan struct{}, 1),
		wakeUp:           make(chan struct{}, 1),
	}
}

// connectMaintenance makes the part that starts what no call and no push
// causes.
func connectMaintenance(b *Broker, interval time.Duration) {
	started := b.now() // before that, this process could not receive tickets
	b.maintenance = &maintenance{
		interval: interval, tasks: b.tasks, log: b.log,
		enabled:         func() bool { return b.Component() != "" },
		requestTickets:  func(ctx context.Context) { b.tickets.requestOverdue(ctx, started) },
		schedulePending: b.exchanger.schedulePending,
		restoreKeys:     func(ctx context.Context) error { return b.signingKeys.restore(ctx) },
		wakeUp:          make(chan struct{}, 1),
	}
}

// startWatching follows a store that other processes write to, until Close.
func startWatching(b *Broker, s store.Watcher) {
	w := &storeWatcher{
		store: s, accounts: b.accounts, cache: b.cache, tasks: b.tasks,
		appids:      b.earlyRenewer.appids,
		nameChanged: b.names.changed,
		onUnknown: func(parts map[int]string) {
			b.syncer.data.note(parts)
			b.maintenance.keysDue.Store(true)
			b.maintenance.wake()
			b.syncer.wake() // records may be lost, and the accounts have to be listed again
		},
		kind: b.Kind,
	}
	b.tasks.wg.Go(w.run)
}

// discover looks for an authorizer without a record: its code may be waiting to
// be exchanged, or its push may have been lost. If it returns nil, the account
// has a record now; see [revalidator.discover] for its errors.
func (b *Broker) discover(ctx context.Context, appid string) error {
	if b.Component() == "" {
		return ErrUnknownAccount
	}
	found, err := b.exchanger.exchangeNow(ctx, appid)
	if err != nil || found {
		return err
	}
	return b.revalidator.discover(ctx, appid)
}

// componentTokenAvailable reports whether the component has a valid token, or a
// ticket to fetch one. In a store that was emptied, the token may only be
// cached.
func (b *Broker) componentTokenAvailable(ctx context.Context) bool {
	acc, err := b.accounts.load(ctx, b.Component())
	if err != nil {
		return false
	}
	if _, cached := b.cache.getStale(b.Component()); cached || acc.usable(b.now()) {
		return true
	}
	_, err = b.tickets.current(ctx)
	return err == nil
}
