package tokens

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"wxproxy/proxy/standin"
	"wxproxy/tokens/store"
)

const signingAppID = "wxaaaaaaaaaaaaaaaa"

// signingReplica is a process that signs and verifies stand-ins.
type signingReplica struct {
	keys   *signingKeys
	known  signingKeyRecord
	signer *standin.Signer
	skew   time.Duration // of its clock
}

func newSigningReplica(
	t *testing.T, s store.Store, now func() time.Time, skew time.Duration,
) *signingReplica {
	t.Helper()
	r := &signingReplica{skew: skew}
	r.keys = &signingKeys{
		store: s, tasks: newTaskGroup(), log: slog.New(slog.DiscardHandler),
		now: func() time.Time { return now().Add(skew) },
	}
	var err error
	if r.known, err = r.keys.read(t.Context(), "standin", true); err == nil {
		r.signer, err = standin.NewSigner(r.known.Key)
	}
	if err != nil {
		t.Fatal(err)
	}
	r.apply(t)
	return r
}

func (r *signingReplica) apply(t *testing.T) {
	t.Helper()
	if err := r.signer.SetKeys(r.known.current(), r.known.others()...); err != nil {
		t.Fatal(err)
	}
}

func (r *signingReplica) poll(t *testing.T) (changed bool) {
	t.Helper()
	known, changed, err := r.keys.poll("standin", r.known)
	if err != nil {
		t.Fatal(err)
	}
	if r.known = known; changed {
		r.apply(t)
	}
	return changed
}

// TestKeysAreReplacedWithoutRejections lets three replicas run for 100 days,
// with clocks two minutes apart, that poll once a minute in random order and
// are replaced by new processes now and then. Every stand-in, issued by any of
// them at any time, is accepted by all until it expires.
func TestKeysAreReplacedWithoutRejections(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	at := time.Unix(1_800_000_000, 0)
	now := func() time.Time { return at }
	s := store.NewMemory()
	var replicas []*signingReplica
	for i := range 3 {
		replicas = append(replicas, newSigningReplica(t, s, now, time.Duration(i-1)*2*time.Minute))
	}
	id := replicas[0].signer.KeyID([32]byte{1})
	type issued struct {
		token string
		until time.Time
	}
	var valid []issued
	signedWith := map[string]bool{}
	// Between two replacements time may pass quickly.
	for end := at.Add(100 * 24 * time.Hour); at.Before(end); {
		step := 20 * time.Second
		if len(replicas[0].known.others()) == 0 && len(replicas[1].known.others()) == 0 {
			step = 10 * time.Minute
		}
		at = at.Add(step)
		for _, i := range random.Perm(3) {
			if step > time.Minute || random.IntN(3) == 0 {
				replicas[i].poll(t)
			}
			if random.IntN(2000) == 0 {
				replicas[i] = newSigningReplica(t, s, now, replicas[i].skew)
			}
		}
		r := replicas[random.IntN(3)]
		signedWith[string(r.known.current())] = true
		token := r.signer.Issue(standin.Account, signingAppID, "orders", id, at.Add(r.skew))
		valid = append(valid, issued{token, at.Add(standin.Lifetime - 4*time.Minute)})
		for len(valid) > 0 && at.After(valid[0].until) {
			valid = valid[1:]
		}
		for _, v := range []issued{valid[0], valid[random.IntN(len(valid))], valid[len(valid)-1]} {
			for i, r := range replicas {
				if _, _, err := r.signer.Verify([]byte(v.token), nil, at.Add(r.skew)); err != nil {
					t.Fatalf("replica %d at %v: %v", i, at, err)
				}
				if r.signer.KeyID([32]byte{1}) != id {
					t.Fatalf("replica %d: the ids of callers' keys have changed", i)
				}
			}
		}
	}
	if n := len(signedWith); n != 4 {
		t.Errorf("keys that have signed in 100 days: got %d, want 4", n)
	}
}

// A replaced key is rejected in the end. A record of the version before is read,
// and its key is replaced 30 days after the upgrade.
func TestReplacedKeyIsRejected(t *testing.T) {
	at, s := time.Unix(1_800_000_000, 0), store.NewMemory()
	first := bytes.Repeat([]byte{7}, store.KeySize)
	err := s.Update(t.Context(), "key/standin", func(context.Context, []byte) ([]byte, error) {
		return encodeRecord(&signingKeyRecord{recordFormat: currentFormat, Key: first}), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	r := newSigningReplica(t, s, func() time.Time { return at }, 0)
	if !bytes.Equal(r.known.Key, first) || !bytes.Equal(r.known.current(), first) {
		t.Fatal("got another key, want the stored one")
	}
	for _, c := range []struct {
		after    time.Duration
		accepted bool // the first key
		signs    bool
		others   int
	}{
		{keyLifetime - time.Hour, true, true, 0},
		{time.Hour, true, true, 1}, // the next key is known
		{keyLead - time.Minute, true, true, 1},
		{time.Minute, true, false, 1}, // it signs
		{keyOverlap - time.Minute, true, false, 1},
		{time.Minute, false, false, 0},
	} {
		at = at.Add(c.after)
		r.poll(t)
		old, _ := standin.NewSigner(first)
		token := old.Issue(standin.Account, signingAppID, "", standin.KeyID{}, at)
		_, _, err := r.signer.Verify([]byte(token), nil, at)
		signs := bytes.Equal(r.known.current(), first)
		if (err == nil) != c.accepted || signs != c.signs || len(r.known.others()) != c.others {
			t.Errorf("after %v: got error %v, signs %v, %d others, want %+v",
				c.after, err, signs, len(r.known.others()), c)
		}
	}
}

// Keys that are never replaced stay as they are, and so does the record.
func TestOtherKeysStay(t *testing.T) {
	at, s := time.Unix(1_800_000_000, 0), store.NewMemory()
	k := &signingKeys{
		store: s, tasks: newTaskGroup(), log: slog.New(slog.DiscardHandler),
		now: func() time.Time { return at },
	}
	key, err := k.get(t.Context(), "state", nil)
	at = at.Add(365 * 24 * time.Hour)
	again, err2 := k.get(t.Context(), "state", nil)
	if err != nil || err2 != nil || !bytes.Equal(key, again) {
		t.Errorf("got errors %v, %v or another key, want the same", err, err2)
	}
}

// TestTimesInTheFutureCountAsReached × each stored time × a clock that was 60
// days ahead: the keys go on being replaced.
func TestTimesInTheFutureCountAsReached(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	ahead := millis(now.Add(60 * 24 * time.Hour))
	key := func(b byte) []byte { return bytes.Repeat([]byte{b}, store.KeySize) }
	for name, r := range map[string]signingKeyRecord{
		"since":    {Key: key(1), Since: ahead},
		"next":     {Key: key(1), Since: 1, Next: key(2), NextFrom: ahead},
		"previous": {Key: key(1), Since: millis(now), Previous: key(2), PreviousUntil: ahead},
	} {
		before := fmt.Sprint(r)
		if !r.advance(now) || r.Since != millis(now) || r.NextFrom > millis(now.Add(keyLead)) ||
			r.PreviousUntil > millis(now.Add(keyOverlap)) {
			t.Errorf("%s: got %v from %s, want no time in the far future", name, r, before)
		}
	}
}

// The store loses the keys, and the next that a replica does is to poll them,
// or to ask for them again: before it is told of the loss, with 0 to 3 other
// replicas, and while a key is new, waits to sign, signs, or was replaced. The
// replica writes the keys in use again, and does not generate others, which
// would reject all stand-ins.
func TestLostKeysAreNotGeneratedAnew(t *testing.T) {
	for others := range 4 {
		for _, age := range []time.Duration{0, keyLifetime, keyLifetime + keyLead} {
			at, s := time.Unix(1_800_000_000, 0), store.NewMemory()
			replicas := make([]*signingReplica, 1+others)
			for i := range replicas {
				replicas[i] = newSigningReplica(t, s, func() time.Time { return at }, 0)
			}
			for _, step := range []time.Duration{min(age, keyLifetime), max(age-keyLifetime, 0)} {
				at = at.Add(step)
				for _, r := range append(replicas, replicas...) {
					r.poll(t)
				}
			}
			id := replicas[0].signer.KeyID([32]byte{1})
			token := replicas[0].signer.Issue(standin.Account, signingAppID, "orders", id, at)
			lose := func(context.Context, []byte) ([]byte, error) { return nil, nil }
			if err := s.Update(t.Context(), "key/standin", lose); err != nil {
				t.Fatal(err)
			}
			replicas[0].poll(t)
			replicas = append(replicas, newSigningReplica(t, s, func() time.Time { return at }, 0))
			for _, r := range replicas {
				r.poll(t)
				if _, _, err := r.signer.Verify([]byte(token), nil, at); err != nil {
					t.Errorf("%d other replicas, keys %v old: %v", others, age, err)
				}
				if r.signer.KeyID([32]byte{1}) != id {
					t.Errorf("%d other replicas, keys %v old: another key id", others, age)
				}
			}
		}
	}
}

// A replica whose clock is a month ahead or behind starts, and polls the keys
// for a day together with two healthy ones. It changes no key, and neither do
// they because of it.
func TestReplicaWithWrongClockReplacesNoKeys(t *testing.T) {
	for _, skew := range []time.Duration{31 * 24 * time.Hour, -31 * 24 * time.Hour} {
		at, s := time.Unix(1_800_000_000, 0), store.NewMemory()
		now := func() time.Time { return at }
		healthy := []*signingReplica{
			newSigningReplica(t, s, now, 0), newSigningReplica(t, s, now, 0),
		}
		wrong := &signingReplica{keys: &signingKeys{
			store: s, tasks: newTaskGroup(), log: slog.New(slog.DiscardHandler),
			now:           func() time.Time { return at.Add(skew) },
			clockIsFarOff: func() bool { return true },
		}}
		_, err := wrong.keys.get(t.Context(), "standin", func(current []byte, others ...[]byte) {
			if !bytes.Equal(current, healthy[0].known.current()) || len(others) > 0 {
				t.Errorf("%v: the replica that starts has changed the keys", skew)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		wrong.known = healthy[0].known
		for range 24 * 60 {
			at = at.Add(time.Minute)
			for _, r := range append(healthy, wrong) {
				if _, changed, err := r.keys.poll("standin", r.known); err != nil || changed {
					t.Fatalf("%v, at %v: got error %v, keys changed %t", skew, at, err, changed)
				}
			}
		}
	}
}
