package callback

import (
	"context"
	"crypto/sha256"
	"sync"
	"time"
)

const (
	// WeChat repeats a message twice, after five seconds each.
	answerAge = 30 * time.Second
	// Answers that are kept, and the length in bytes up to which one is.
	maxAnswers = 1024
	maxKept    = 64 << 10
)

// answers has each message handled once, though WeChat repeats it: who comes while the first is under way waits for
// it, and an answer that reached nobody, as WeChat had gone, is kept for the repeat. One that was delivered is
// forgotten, and one that failed: the repeat is then tried anew.
//
// Messages are told apart by all that is in them, MsgId or FromUserName and CreateTime included (WeChat's advice
// for finding repeats), because a repeat may well be encrypted and signed anew. replays tells those apart that are
// the same to the last byte.
type answers struct {
	mu    sync.Mutex
	m     map[answerKey]*pending
	order []kept // oldest first
}

type answerKey [sha256.Size]byte

// pending is a message in hand, or an answer that waits for the repeat.
type pending struct {
	done    chan struct{} // closed when the two below are written
	text    serviceAnswer
	err     error
	settled chan struct{} // closed when it is known what became of the answer

	// With answers.mu: where it stands.
	isDone, isKept, isSettled bool
}

type kept struct {
	key answerKey
	p   *pending
	at  time.Time
}

func keyOf(account string, doc []byte) answerKey {
	h := sha256.New()
	h.Write([]byte(account + "\x00"))
	h.Write(doc)
	return answerKey(h.Sum(nil))
}

// do has f answer the message, unless that has happened or is happening. Where there is no error settle must be
// called, once, with what became of the answer. ctx bounds the waiting for somebody else.
func (a *answers) do(ctx context.Context, key answerKey, f func() (serviceAnswer, error)) (text serviceAnswer, settle func(delivered bool), err error) {
	for {
		a.mu.Lock()
		a.expire()
		p := a.m[key]
		if p == nil {
			p = &pending{done: make(chan struct{}), settled: make(chan struct{}), err: errPanic}
			if a.m == nil {
				a.m = make(map[answerKey]*pending)
			}
			a.m[key] = p
			a.mu.Unlock()
			a.run(key, p, f)
			return p.text, func(delivered bool) { a.settle(key, p, delivered) }, p.err
		}
		// One whose answer is on its way out is soon forgotten, or kept.
		wait, use := p.done, !p.isDone || p.isKept
		if !use {
			wait = p.settled
		}
		a.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return serviceAnswer{}, nil, ctx.Err()
		}
		if use && p.err == nil {
			return p.text, func(delivered bool) { a.settle(key, p, delivered) }, nil
		}
		// It failed, and is gone: this one takes its place.
	}
}

func (a *answers) run(key answerKey, p *pending, f func() (serviceAnswer, error)) {
	defer func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if p.isDone = true; p.err != nil {
			delete(a.m, key)
		}
		close(p.done)
	}()
	p.text, p.err = f()
}

func (a *answers) settle(key answerKey, p *pending, delivered bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !p.isSettled {
		p.isSettled = true
		defer close(p.settled) // behind what follows
	}
	switch {
	case a.m[key] != p: // somebody else has had it delivered
	case delivered, len(p.text.xml) > maxKept:
		delete(a.m, key)
	case !p.isKept:
		p.isKept = true
		a.order = append(a.order, kept{key, p, time.Now()})
		a.expire()
	}
}

// expire drops what is too old or too much.
func (a *answers) expire() {
	n := max(0, len(a.order)-maxAnswers)
	for n < len(a.order) && time.Since(a.order[n].at) >= answerAge {
		n++
	}
	for _, k := range a.order[:n] {
		if a.m[k.key] == k.p {
			delete(a.m, k.key)
		}
	}
	a.order = a.order[n:]
}
