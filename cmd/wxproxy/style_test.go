package main

import (
	"cmp"
	"os"
	"slices"
	"testing"
)

// styleLimits bounds each figure of [TestStyle]. They are a ratchet: set them to
// the figures of the tree when those fall, and never raise them.
//
// A line may be too long for a good reason, so most limits are not zero.
var styleLimits = []struct {
	figure  string
	limit   int
	atLeast bool // the limit is the smallest value, not the largest
}{
	{figure: commentOver80, limit: 160},
	{figure: commentOver100, limit: 1},
	{figure: codeOver100, limit: 1810},
	{figure: codeOver120, limit: 230},
	{figure: proseOver100, limit: 4},
	{figure: proseOver120, limit: 0},
	{figure: pronounsInComments, limit: 0},
	{figure: pronounsInStrings, limit: 0},
	{figure: pronounsInProse, limit: 3},
	{figure: pronounsElsewhere, limit: 0},
	{figure: british, limit: 0},
	{figure: commentShare, limit: 178, atLeast: true},
	{figure: longFunctions, limit: 0},
	{figure: complexFunctions, limit: 0},
	{figure: mostMethods, limit: 35},
	{figure: filesInProxy, limit: 24},
	{figure: filesInCommand, limit: 16},
	{figure: sleeps, limit: 29},
}

// TestStyle counts what a reader stumbles over, in all text of the repository.
// With -v it prints every figure. WXPROXY_STYLE_LIST=proxy/ lists the lines in
// the files of that folder, and WXPROXY_STYLE_ROOT counts another checkout,
// which is not held to the limits.
func TestStyle(t *testing.T) {
	root := cmp.Or(os.Getenv("WXPROXY_STYLE_ROOT"), "../..")
	c := newStyleCounter(root)
	if err := c.walk(); err != nil {
		t.Fatal(err)
	}
	held := os.Getenv("WXPROXY_STYLE_ROOT") == ""
	for _, l := range styleLimits {
		got := c.value(l.figure)
		t.Logf("%5d  (limit %5d)  %s%s", got, l.limit, l.figure, c.detail(l.figure))
		within, bound := got <= l.limit, "at most"
		if l.atLeast {
			within, bound = got >= l.limit, "at least"
		}
		if list, ok := os.LookupEnv("WXPROXY_STYLE_LIST"); ok {
			t.Log(c.where(l.figure, list))
		}
		if !held || within {
			continue
		}
		t.Errorf("%s: got %d, want %s %d", l.figure, got, bound, l.limit)
		t.Log(c.where(l.figure, ""))
	}
}

// TestStyleCountsWhatItNames runs the counter over a small tree with one known
// fault of each kind.
func TestStyleCountsWhatItNames(t *testing.T) {
	c := newStyleCounter("testdata/style")
	if err := c.walk(); err != nil {
		t.Fatal(err)
	}
	want := map[string]int{
		commentOver80:      2,
		commentOver100:     1,
		codeOver100:        2,
		codeOver120:        1,
		proseOver100:       2,
		proseOver120:       1,
		pronounsInComments: 2,
		pronounsInStrings:  1,
		pronounsInProse:    1,
		pronounsElsewhere:  1,
		british:            3,
		commentShare:       105,
		longFunctions:      0,
		complexFunctions:   1,
		mostMethods:        2,
		filesInProxy:       1,
		filesInCommand:     0,
		sleeps:             1,
	}
	if len(want) != len(styleLimits) {
		t.Errorf("got %d figures, want %d", len(styleLimits), len(want))
	}
	for figure, n := range want {
		if got := c.value(figure); got != n {
			t.Errorf("%s: got %d, want %d, at %v", figure, got, n, c.places[figure])
		}
	}
	if !slices.Contains(c.places[sleeps], place{"proxy/faults_test.go", 6}) {
		t.Errorf("places of %s: got %v, want proxy/faults_test.go 6 among them", sleeps, c.places[sleeps])
	}
}
