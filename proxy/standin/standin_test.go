package standin

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"
)

const testAppID = "wxaaaaaaaaaaaaaaaa"

var (
	testKey = []byte("0123456789abcdef0123456789abcdef")
	testNow = time.Unix(1_800_000_000, 0)
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
	valid := s.Issue(Account, testAppID, "orders", testNow)
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
	for name, c := range map[string]struct {
		token string
		want  error
	}{
		"unchanged":        {sign(unchanged), nil},
		"longest name":     {s.Issue(Account, testAppID, strings.Repeat("n", MaxCallerName), testNow), nil},
		"name too long":    {s.Issue(Account, testAppID, strings.Repeat("n", MaxCallerName+1), testNow), ErrInvalid},
		"another version":  {sign(func(b []byte) []byte { b[0]++; return b }), ErrInvalid},
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

func TestIssueAndVerify(t *testing.T) {
	s := newSigner(t, testKey)
	for _, c := range []struct {
		kind   Kind
		caller string
		at     time.Duration // since it was issued
		want   error
	}{
		{Account, "orders", 0, nil},
		{Component, "orders", 0, nil},
		{Account, "", Lifetime, nil},
		{Account, strings.Repeat("n", MaxCallerName), Lifetime + Grace, nil},
		{Account, "orders", Lifetime + Grace + time.Second, ErrExpired},
	} {
		token := s.Issue(c.kind, testAppID, c.caller, testNow)
		if !HasPrefix([]byte(token)) || len(token) > MaxLength {
			t.Errorf("%+v: got %q, want the prefix %q and up to %d characters", c, token, Prefix, MaxLength)
		}
		// Another signer with the same key is another replica.
		got, _, err := newSigner(t, testKey).Verify([]byte(token), []byte("before"), testNow.Add(c.at))
		want := Token{Kind: c.kind, AppID: []byte(testAppID), Caller: []byte(c.caller), Expires: testNow.Add(Lifetime)}
		if !errors.Is(err, c.want) || got.Kind != want.Kind || !bytes.Equal(got.AppID, want.AppID) ||
			!bytes.Equal(got.Caller, want.Caller) || !got.Expires.Equal(want.Expires) {
			t.Errorf("%+v: got %+v, error %v, want %+v, error %v", c, got, err, want, c.want)
		}
	}
}

func TestVerifyKeepsBuffer(t *testing.T) {
	s := newSigner(t, testKey)
	buf := []byte("before")
	for _, token := range []string{s.Issue(Account, testAppID, "orders", testNow), "wxp_AQ", "78_real"} {
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
	random := newSigner(t, nil).Issue(Account, testAppID, "orders", testNow)
	for _, s := range []*Signer{newSigner(t, testKey), newSigner(t, nil)} {
		if _, _, err := s.Verify([]byte(random), nil, testNow); !errors.Is(err, ErrInvalid) {
			t.Errorf("a stand-in of another key: got error %v, want %v", err, ErrInvalid)
		}
	}
	// The signer must not depend on what happens to its argument.
	key := bytes.Clone(testKey)
	s := newSigner(t, key)
	clear(key)
	if _, _, err := s.Verify([]byte(newSigner(t, testKey).Issue(Account, testAppID, "", testNow)), nil, testNow); err != nil {
		t.Errorf("after the key was overwritten: got error %v, want none", err)
	}
}

// FuzzVerify checks that only what was issued is accepted, in one spelling.
func FuzzVerify(f *testing.F) {
	s := newSigner(f, testKey)
	issued := s.Issue(Account, testAppID, "orders", testNow)
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
