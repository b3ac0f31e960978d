package standin

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

const testAppID = "wxaaaaaaaaaaaaaaaa"

var (
	testKey = []byte("0123456789abcdef0123456789abcdef")
	testNow = time.Unix(1_800_000_000, 0)
	testID  = KeyID{1, 2, 3, 4, 5, 6, 7, 8}
)

func newSigner(t testing.TB, key []byte) *Signer {
	t.Helper()
	s, err := NewSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestOnlyTheFormatIsAccepted checks that a token with a valid signature is
// rejected all the same if it is not of the present format, and that a token
// has one spelling.
func TestOnlyTheFormatIsAccepted(t *testing.T) {
	s := newSigner(t, testKey)
	valid := s.Issue(Account, testAppID, "orders", testID, testNow)
	content, err := encoding.DecodeString(valid[len(Prefix):])
	if err != nil {
		t.Fatal(err)
	}
	content = content[:len(content)-len(s.appendMAC(nil, nil))]
	sign := func(change func(b []byte) []byte) string {
		b := change(bytes.Clone(content))
		return Prefix + encoding.EncodeToString(s.appendMAC(b, b))
	}
	unchanged := func(b []byte) []byte { return b }
	const noName = fixedLength + keyIDLength
	longest := strings.Repeat("n", MaxCallerName)
	tooLong1 := func(b []byte) []byte { return append(version1(b), longest...) }
	ofKeyID := func(b []byte) []byte { return append([]byte(keyIDContext), b...) }
	for name, c := range map[string]struct {
		token string
		want  error
	}{
		"unchanged":        {sign(unchanged), nil},
		"longest name":     {s.Issue(Account, testAppID, longest, testID, testNow), nil},
		"name too long":    {s.Issue(Account, testAppID, longest+"n", testID, testNow), ErrInvalid},
		"next version":     {sign(func(b []byte) []byte { b[0]++; return b }), ErrInvalid},
		"version 0":        {sign(func(b []byte) []byte { b[0] = 0; return b }), ErrInvalid},
		"version 1":        {sign(version1), nil},
		"1, no name":       {sign(func(b []byte) []byte { return version1(b)[:fixedLength] }), nil},
		"1, name too long": {sign(tooLong1), ErrInvalid},
		"no key id":        {sign(func(b []byte) []byte { return b[:fixedLength] }), ErrInvalid},
		"half a key id":    {sign(func(b []byte) []byte { return b[:noName-1] }), ErrInvalid},
		"no name":          {sign(func(b []byte) []byte { return b[:noName] }), nil},
		"a key's id":       {sign(ofKeyID), ErrInvalid},
		"unknown kind":     {sign(func(b []byte) []byte { b[1] = 3; return b }), ErrInvalid},
		"line break":       {valid[:20] + "\n" + valid[20:], ErrInvalid},
		"carriage return":  {valid + "\r", ErrInvalid},
		"too short":        {sign(func(b []byte) []byte { return b[:headerLength] }), ErrInvalid},
		"another encoding": {valid + "=", ErrInvalid},
	} {
		if _, _, err := s.Verify([]byte(c.token), nil, testNow); err != c.want {
			t.Errorf("%s: %q: got error %v, want %v", name, c.token, err, c.want)
		}
	}
}

// version1 returns the signed bytes of a stand-in as version 1 had them.
func version1(b []byte) []byte {
	b = slices.Delete(b, fixedLength, fixedLength+keyIDLength)
	b[0] = versionNoKeyID
	return b
}

// TestVersion1 checks that a stand-in of the version before is still read, and
// that it says under no key which it was issued. The text is what that version
// issued.
func TestVersion1(t *testing.T) {
	const issued = "wxp_AQFrSe4gd3hhYWFhYWFhYWFhYWFhYWFhb3JkZXJz" +
		"zNKJ1Q-FAo8MhRlM49K5P-nKmA_3DCOixBPDD14uFUk"
	got, _, err := newSigner(t, testKey).Verify([]byte(issued), nil, testNow)
	if err != nil || !got.NoKeyID || got.Key != (KeyID{}) || got.Kind != Account ||
		string(got.AppID) != testAppID || string(got.Caller) != "orders" ||
		!got.Expires.Equal(testNow.Add(Lifetime)) {
		t.Errorf("got %+v, error %v, want a stand-in of orders without a key id", got, err)
	}
}

// TestKeyID checks that the id of a key depends on the key and on the signing
// key, so that it cannot be computed from a guessed key, and that it is the
// same in all replicas.
func TestKeyID(t *testing.T) {
	a, b := sha256.Sum256([]byte("a")), sha256.Sum256([]byte("b"))
	s := newSigner(t, testKey)
	id := s.KeyID(a)
	if again := newSigner(t, testKey).KeyID(a); again != id || id == (KeyID{}) {
		t.Errorf("another replica: got %x, want %x", again, id)
	}
	if s.KeyID(b) == id || newSigner(t, nil).KeyID(a) == id || bytes.HasPrefix(a[:], id[:]) {
		t.Errorf("got %x for another key or signing key, too, or as a part of the SHA-256", id)
	}
}

func TestIssueAndVerify(t *testing.T) {
	s := newSigner(t, testKey)
	for _, c := range []struct {
		kind   Kind
		caller string
		key    KeyID
		at     time.Duration // since it was issued
		want   error
	}{
		{Account, "orders", testID, 0, nil},
		{Component, "orders", testID, 0, nil},
		{Account, "", KeyID{}, Lifetime, nil},
		{Account, strings.Repeat("n", MaxCallerName), testID, Lifetime + Grace, nil},
		{Account, "orders", testID, Lifetime + Grace + time.Second, ErrExpired},
	} {
		token := s.Issue(c.kind, testAppID, c.caller, c.key, testNow)
		if !HasPrefix([]byte(token)) || len(token) > MaxLength {
			t.Errorf("%+v: got %q, want the prefix %q and up to %d characters", c, token, Prefix, MaxLength)
		}
		// Another signer with the same key is another replica.
		got, _, err := newSigner(t, testKey).Verify([]byte(token), []byte("before"), testNow.Add(c.at))
		want := Token{
			Kind: c.kind, AppID: []byte(testAppID), Caller: []byte(c.caller), Key: c.key,
			Expires: testNow.Add(Lifetime),
		}
		if !errors.Is(err, c.want) || got.Kind != want.Kind || got.Key != want.Key || got.NoKeyID ||
			!bytes.Equal(got.AppID, want.AppID) || !bytes.Equal(got.Caller, want.Caller) ||
			!got.Expires.Equal(want.Expires) {
			t.Errorf("%+v: got %+v, error %v, want %+v, error %v", c, got, err, want, c.want)
		}
	}
}

func TestVerifyKeepsBuffer(t *testing.T) {
	s := newSigner(t, testKey)
	buf := []byte("before")
	issued := s.Issue(Account, testAppID, "orders", testID, testNow)
	for _, token := range []string{issued, "wxp_AQ", "78_real"} {
		_, got, _ := s.Verify([]byte(token), buf, testNow)
		if !bytes.HasPrefix(got, buf) {
			t.Errorf("%q: got buffer %q, want it to begin with %q", token, got, buf)
		}
	}
}

func TestKeys(t *testing.T) {
	if _, err := NewSigner(testKey[1:]); err == nil {
		t.Errorf("a key of %d bytes: got no error, want one", len(testKey)-1)
	}
	random := newSigner(t, nil).Issue(Account, testAppID, "orders", testID, testNow)
	for _, s := range []*Signer{newSigner(t, testKey), newSigner(t, nil)} {
		if _, _, err := s.Verify([]byte(random), nil, testNow); !errors.Is(err, ErrInvalid) {
			t.Errorf("a stand-in of another key: got error %v, want %v", err, ErrInvalid)
		}
	}
	// The signer must not depend on what happens to its argument.
	key := bytes.Clone(testKey)
	s := newSigner(t, key)
	clear(key)
	issued := newSigner(t, testKey).Issue(Account, testAppID, "", KeyID{}, testNow)
	if _, _, err := s.Verify([]byte(issued), nil, testNow); err != nil {
		t.Errorf("after the key was overwritten: got error %v, want none", err)
	}
}

// FuzzVerify checks that only what was issued is accepted, in one spelling.
func FuzzVerify(f *testing.F) {
	s := newSigner(f, testKey)
	issued := s.Issue(Account, testAppID, "orders", testID, testNow)
	f.Add(issued)
	f.Add(issued[:len(issued)-1])
	f.Add(Prefix)
	f.Add(Prefix + "AQ")
	f.Add("78_real")
	f.Fuzz(func(t *testing.T, token string) {
		got, _, err := s.Verify([]byte(token), nil, testNow)
		if (err == nil) != (token == issued) {
			t.Fatalf("%q: got %+v, error %v, want only %q to be accepted", token, got, err, issued)
		}
	})
}

// TestSetKeys replaces the keys of a signer: what it has signed is accepted
// while its key is among the others, the ids of callers' keys stay, and a key
// that is too short changes nothing.
func TestSetKeys(t *testing.T) {
	s, second := newSigner(t, testKey), bytes.Repeat([]byte{2}, KeySize)
	id := s.KeyID(sha256.Sum256(nil))
	first := s.Issue(Account, testAppID, "orders", id, testNow)
	set := func(current []byte, others ...[]byte) {
		t.Helper()
		if err := s.SetKeys(current, others...); err != nil {
			t.Fatal(err)
		}
	}
	issue := func(s *Signer) string { return s.Issue(Account, testAppID, "orders", id, testNow) }
	accepts := func(s *Signer, token string) bool {
		_, _, err := s.Verify([]byte(token), nil, testNow)
		return err == nil
	}
	set(testKey, second)
	if !accepts(s, first) || !accepts(newSigner(t, testKey), issue(s)) {
		t.Error("with a next key: got another signing key, or a stand-in is rejected")
	}
	if !accepts(s, issue(newSigner(t, second))) {
		t.Error("what a replica signs with the next key is rejected")
	}
	set(second, testKey)
	if !accepts(s, first) || !accepts(newSigner(t, second), issue(s)) {
		t.Error("with a previous key: got another signing key, or a stand-in is rejected")
	}
	if s.KeyID(sha256.Sum256(nil)) != id {
		t.Error("the id of a caller's key has changed")
	}
	set(second)
	if err := s.SetKeys(testKey, testKey[1:]); err == nil || accepts(s, first) {
		t.Errorf("got error %v, or a stand-in of a former key is accepted", err)
	}
}
