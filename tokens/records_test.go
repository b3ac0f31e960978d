package tokens_test

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"wxproxy/tokens"
	"wxproxy/tokens/store"
)

// The names in stored records are fixed, because existing stores hold them.
// This test fails if a field is renamed, or a record loses its format version.
func TestStoredNamesDoNotChange(t *testing.T) {
	f, client := newFakeWeChat(t)
	s := store.NewMemory()
	b := newAuthorized(t, s, client, nil)
	waitForProfile(t, b)
	for range 3 {
		mustRenew(t, b, accountA) // the third sets the throttle
	}
	if _, err := b.SigningKey(t.Context(), "standin", nil); err != nil {
		t.Fatalf("SigningKey: %v", err)
	}
	if _, err := b.Sync(t.Context(), tokens.SyncOptions{}); err != nil {
		t.Fatalf("Sync: %v", err)
	}
	authorize(t, b, accountB, 1000)
	if err := b.MarkRevoked(t.Context(), accountB, time.Unix(2000, 0)); err != nil {
		t.Fatalf("MarkRevoked: %v", err)
	}
	f.fail("api_query_auth", -1)
	pushCode(t, b, "wxffffffffffffffff", codeOf("wxffffffffffffffff", 1), 1000)
	f.fail("stable_token", -1)
	if _, err := b.Token(t.Context(), ownAccount); err == nil {
		t.Fatal("Token with errcode -1: got no error")
	}
	// The key of an exchanged code is not sealed, and holds only its SHA-256.
	code := codeOf(accountA, 1000)
	exchanged := exchangedKey(code)
	returned(t, b, "return", code, "state", nil)
	for key, want := range map[string]string{
		exchanged:                      "appid at state v",
		"account/" + accountA:          "access authorized code expires issued kind name profiled refresh storm type user_name v",
		"name/gh_" + accountA:          "appid learned v",
		"account/" + ownAccount:        "errcode failure failures kind retry_at v",
		"ticket/" + component:          "created received ticket v",
		"code/" + "wxffffffffffffffff": "code created expires v",
		"sync/" + component:            "beat begun done v",
		"key/standin":                  "key v",
	} {
		if got := fieldsOf(t, s, key); got != want {
			t.Errorf("%s: got fields %q, want %q", key, got, want)
		}
	}
	got := fieldsOf(t, s, "account/"+accountB)
	if !strings.Contains(got, "gone") || !strings.Contains(got, "revoked") {
		t.Errorf("revoked account: got fields %q, want gone and revoked among them", got)
	}
}

// These records were written by an earlier version, with every field set.
// Stores in use hold such records, so each of them is read and written as it
// is: a name that changed would lose the field.
func TestEarlierRecordsAreReadAndWritten(t *testing.T) {
	for prefix, record := range map[string]string{
		"account/": `{"v":1,"kind":"authorizer","access":"A1","refresh":"R1","issued":1,"expires":2,` +
			`"authorized":3,"revoked":4,"gone":true,"forgotten":10,"restore":true,` +
			`"code":"F","failures":5,"failure":"f","errcode":6,` +
			`"retry_at":7,"no_ticket":true,"storm":{"at":[8],"raging":true},` +
			`"name":"n","type":"t","user_name":"u","profiled":9}`,
		"ticket/": `{"v":1,"ticket":"T","created":1,"received":2,"asked":3}`,
		"code/":   `{"v":1,"code":"C","created":1,"expires":2,"update":true}`,
		"spent/":  `{"v":1,"appid":"wx","at":1,"func_info":[],"state":"none"}`,
		"sync/":   `{"v":1,"begun":1,"done":2}`,
		"key/":    `{"v":1,"key":"aw=="}`,
		"name/":   `{"v":1,"appid":"wx","learned":true}`,
	} {
		got, err := tokens.DecodeAndEncode[prefix]([]byte(record))
		if err != nil || string(got) != record {
			t.Errorf("%s: got %s, error %v, want %s", prefix, got, err, record)
		}
	}
}

// fieldsOf returns the sorted names of a record's fields.
func fieldsOf(t *testing.T, s store.Store, key string) string {
	t.Helper()
	raw, err := s.Load(t.Context(), key)
	if err != nil {
		t.Fatalf("Load(%s): %v", key, err)
	}
	fields := map[string]any{}
	if err := json.Unmarshal(raw, &fields); err != nil {
		t.Fatalf("%s: %v", key, err)
	}
	if storm, ok := fields["storm"].(map[string]any); ok && (storm["at"] == nil || storm["raging"] != true) {
		t.Errorf("%s: got storm %v, want the fields at and raging", key, storm)
	}
	return strings.Join(slices.Sorted(maps.Keys(fields)), " ")
}
