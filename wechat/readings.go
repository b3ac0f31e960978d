package wechat

import (
	"slices"
	"strings"
)

// A document from WeChat is a sequence of runs and texts: run, text, run, text
// … run. Runs hold what WeChat writes, texts what users typed. A text can hold
// anything, also end tags and other fields, so there can be several readings of
// a document: ways to cut it into runs and texts in which every run is
// well-formed and every text has its own field. The true one is always among
// them. readLenient decides as follows.
//
//  1. The first run is true: nothing before the first text was typed by a user.
//     So is the last run, which is read from the last end tag of a text field
//     behind which only elements follow, up to the end of the document. What
//     these runs hold cannot be forged, and no other run may hold a field of
//     theirs that WeChat writes once.
//  2. If the field of the last text is that of the first, there is one text:
//     all that lies between the two runs.
//  3. Otherwise each text ends at the last end tag with which there is a
//     reading. This decides what the texts are, and nothing else: a field in a
//     run between two texts is only kept if no text of any reading covers the
//     place where it stands, and a text between the first and the last only if
//     there is no reading without its field.
//
// So a user can lose a field between two texts, by typing what looks like it,
// but cannot add or change one.

// reading is a document cut into runs and texts.
type reading struct{ pieces []piece }

// piece is a run, and the text behind it.
type piece struct {
	ops []op
	// unsure is set if the run could be part of a text. Its fields are
	// withheld then.
	unsure   bool
	text     *textStart // nil behind the last run
	end      endTag     // of the text
	withheld bool       // there are readings without the field of the text
}

// textClass is what decides which end tags can end a text.
type textClass struct {
	path  string
	cdata bool
}

func (t *textStart) class() textClass { return textClass{t.path, t.cdata} }

// textEnd is an end tag that could be the end of a text of a class.
type textEnd struct {
	class textClass
	tag   endTag
	next  run
	live  bool // it is the end of a text in some reading
}

// readingFinder finds the readings of a document.
type readingFinder struct {
	l     *lenientScanner
	first *textStart // of the first text
	last  textEnd    // of the last text
	// ends are the ends that are followed by a run and another text, in order.
	ends []textEnd
	// exhausted is set if there are more ends than can be examined.
	exhausted bool
	// Of the texts in all readings: the lowest offset at which one starts, and
	// the highest at which one ends.
	starts, stops map[textClass]int
}

// findReading reads a document whose first run starts at an offset. It returns
// false if there is no reading.
func findReading(s string, root int, t tolerance) (reading, bool) {
	l := newLenientScanner(s, t)
	front, ok := l.scan(root, nil)
	if !ok || front.text == nil {
		return reading{[]piece{{ops: front.ops}}}, ok
	}
	f := readingFinder{l: l, first: front.text}
	ends := l.textEnds(front.text.at)
	l.ban(front)
	for i := len(ends) - 1; i >= 0 && l.budget > 0; i-- {
		for _, path := range textPathsByName[ends[i].name] {
			tail, ok := l.scan(ends[i].after, parentsOf(path))
			if !ok || tail.text != nil {
				continue
			}
			f.last = textEnd{textClass{path, ends[i].endsCDATA}, ends[i], tail, true}
			if path == front.text.path {
				if front.text.cdata && !ends[i].endsCDATA && !t.loose {
					continue
				}
				return reading{[]piece{
					{ops: front.ops, text: front.text, end: ends[i]}, {ops: tail.ops},
				}}, true
			}
			if r, ok := f.find(front, ends[:i]); ok {
				return r, true
			}
		}
	}
	return reading{}, false
}

// textEnds returns the end tags of text fields from an offset on.
func (l *lenientScanner) textEnds(from int) []endTag {
	var ends []endTag
	for {
		i := strings.Index(l.s[from:], "</")
		if i < 0 {
			return ends
		}
		if e, ok := l.endAt(from + i); ok && textPathsByName[e.name] != nil {
			ends = append(ends, e)
		}
		from += i + 2
	}
}

// ban makes the fields of a run that WeChat writes once unacceptable in others.
func (l *lenientScanner) ban(r run) {
	for _, o := range r.ops {
		if o.depth == 1 && (slices.Contains(onceFields, o.name) ||
			slices.Contains(documentFields, o.name)) {
			l.banned[o.name] = true
		}
	}
}

// parentsOf returns the elements around a text field, without the root.
func parentsOf(path string) []string {
	names := strings.Split(path, "/")
	return names[:len(names)-1]
}

// find finds the reading of a document with a first and a last text that are
// not of the same field. ends are the end tags between them.
func (f *readingFinder) find(front run, ends []endTag) (reading, bool) {
	f.l.ban(f.last.next)
	f.ends, f.exhausted = nil, false
	for i := len(ends) - 1; i >= 0; i-- {
		if f.l.budget <= 0 {
			f.exhausted = true
			break
		}
		f.addEnd(ends[i])
	}
	slices.Reverse(f.ends)
	if !f.markLive("") {
		return reading{}, false
	}
	return f.choose(front)
}

// addEnd adds an end tag if a run and another text follow it.
func (f *readingFinder) addEnd(tag endTag) {
	for _, path := range textPathsByName[tag.name] {
		if path == f.last.class.path {
			continue // it would be there twice
		}
		next, ok := f.l.scan(tag.after, parentsOf(path))
		if !ok || next.text == nil || next.text.at >= f.last.tag.at ||
			next.text.path == path || next.text.path == f.first.path {
			continue
		}
		for _, cdata := range []bool{true, false} {
			if tag.endsCDATA || !cdata {
				f.ends = append(f.ends, textEnd{textClass{path, cdata}, tag, next, false})
			}
		}
	}
}

// markLive finds out which texts are part of a reading that has no field with
// the path without. It reports whether there is such a reading.
func (f *readingFinder) markLive(without string) bool {
	// From the back: an end is live if the text behind it has a live end.
	stops := map[textClass]int{{f.last.class.path, false}: f.last.tag.at}
	if f.last.class.cdata {
		stops[textClass{f.last.class.path, true}] = f.last.tag.at
	}
	for i := len(f.ends) - 1; i >= 0; i-- {
		e := &f.ends[i]
		stop, ok := stops[e.next.text.class()]
		e.live = ok && stop >= e.next.text.at && e.class.path != without
		if e.live {
			stops[e.class] = max(stops[e.class], e.tag.at)
		}
	}
	// From the front: and if a text that starts in some reading can end there.
	starts := map[textClass]int{f.first.class(): f.first.at}
	f.stops = map[textClass]int{f.last.class: f.last.tag.at}
	found := false
	for i := range f.ends {
		e := &f.ends[i]
		start, ok := starts[e.class]
		if e.live = e.live && ok && start <= e.tag.at; !e.live {
			continue
		}
		next := e.next.text
		if start, ok := starts[next.class()]; !ok || next.at < start {
			starts[next.class()] = next.at
		}
		f.stops[e.class] = max(f.stops[e.class], e.tag.at)
		found = found || next.path == f.last.class.path
	}
	f.starts = starts
	return found
}

// choose returns the reading in which each text ends at its last live end, or
// at its first if its field prefers that.
func (f *readingFinder) choose(front run) (reading, bool) {
	r := reading{[]piece{{ops: front.ops, text: front.text}}}
	used := map[string]bool{front.text.path: true}
	for {
		current := &r.pieces[len(r.pieces)-1]
		if current.text.path == f.last.class.path {
			current.end = f.last.tag
			r.pieces = append(r.pieces, piece{ops: f.last.next.ops})
			break
		}
		e := f.endOf(current.text, used)
		if e == nil {
			return reading{}, false
		}
		current.end = e.tag
		used[e.next.text.path] = true
		r.pieces = append(r.pieces, piece{
			ops: e.next.ops, text: e.next.text, unsure: f.isCovered(e.next),
		})
	}
	for i := 1; i < len(r.pieces)-2; i++ {
		if p := &r.pieces[i]; p.unsure {
			p.withheld = f.exhausted || f.markLive(p.text.path)
		}
	}
	return r, true
}

// endOf returns the live end of a text that its field prefers, nil if there is
// none.
func (f *readingFinder) endOf(t *textStart, used map[string]bool) *textEnd {
	var best *textEnd
	for i := range f.ends {
		e := &f.ends[i]
		if !e.live || e.class != t.class() || e.tag.at < t.at || used[e.next.text.path] {
			continue
		}
		if best = e; textFieldsByPath[t.path].preferFirst {
			break
		}
	}
	return best
}

// isCovered reports whether a run between two texts is part of a text in some
// reading.
func (f *readingFinder) isCovered(r run) bool {
	if f.exhausted {
		return true
	}
	for class, start := range f.starts {
		if start < r.at && f.stops[class] > r.text.at {
			return true
		}
	}
	return false
}
