package tokens

import (
	"fmt"
	"testing"
	"time"
)

// dropUnscheduled invalidates what cannot be enumerated, and what a reader that
// started before is about to put.
func TestDropUnscheduled(t *testing.T) {
	c, err := newCache(1000, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	put := func(appid string, generation, epoch uint64) {
		e := &entry{usableUntil: time.Now().Add(time.Hour), generation: generation}
		c.put(appid, e, time.Hour, epoch)
		c.entries.Wait() // ristretto shows a new key only then
	}
	before, epoch := c.generation.Load(), c.epoch("late")
	put("scheduled", 0, c.epoch("scheduled"))
	put("unscheduled", before, c.epoch("unscheduled"))
	c.dropUnscheduled()
	put("late", 0, epoch)
	put("old generation", before, c.epoch("old generation"))
	put("new generation", c.generation.Load(), c.epoch("new generation"))
	for appid, want := range map[string]bool{
		"scheduled": true, "unscheduled": false, "late": false,
		"old generation": false, "new generation": true,
	} {
		if _, got := c.getStale(appid); got != want {
			t.Errorf("%s: got cached %t, want %t", appid, got, want)
		}
	}
}

// An entry that is put right after another one replaces it, also while ristretto
// has not made the first one visible yet. It may be missing.
func TestPutReplacesInvisibleEntry(t *testing.T) {
	c, err := newCache(1000, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	for i := range 1000 {
		appid := fmt.Sprint("account ", i)
		var last *entry
		for range 2 {
			last = &entry{usableUntil: time.Now().Add(time.Hour)}
			c.put(appid, last, time.Hour, c.epoch(appid))
		}
		c.settle()
		if got, ok := c.getStale(appid); ok && got != last {
			t.Fatalf("account %d: got the first entry, want the last one or none", i)
		}
	}
}
