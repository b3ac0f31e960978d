package pages

import (
	"strconv"
	"strings"
)

func (q *qrCode) at(x, y int) bool { return q.dark[y*q.size+x] }

// set draws a module of a pattern.
func (q *qrCode) set(x, y int, dark bool) {
	q.dark[y*q.size+x], q.special[y*q.size+x] = dark, true
}

// patterns draws what does not depend on the text: where the code is, how it lies, how large a module is.
func (q *qrCode) patterns(version int) {
	for i := range q.size {
		q.set(6, i, i%2 == 0)
		q.set(i, 6, i%2 == 0)
	}
	for _, c := range [][2]int{{3, 3}, {q.size - 4, 3}, {3, q.size - 4}} {
		q.rings(c[0], c[1], 4)
	}
	at := qrAlignment(version)
	for i, x := range at {
		for j, y := range at {
			if i == 0 && (j == 0 || j == len(at)-1) || i == len(at)-1 && j == 0 {
				continue // a finder is there
			}
			q.rings(x, y, 2)
		}
	}
	if version < 7 {
		return
	}
	rest := version
	for range 12 {
		rest = rest<<1 ^ rest>>11*0x1f25
	}
	for i := range 18 {
		dark := (version<<12|rest)>>i&1 == 1
		q.set(q.size-11+i%3, i/3, dark)
		q.set(i/3, q.size-11+i%3, dark)
	}
}

// rings draws a finder with its border (radius 4), or an alignment pattern (2).
func (q *qrCode) rings(cx, cy, radius int) {
	for dy := -radius; dy <= radius; dy++ {
		for dx := -radius; dx <= radius; dx++ {
			x, y, far := cx+dx, cy+dy, max(dx, -dx, dy, -dy)
			if x < 0 || y < 0 || x >= q.size || y >= q.size {
				continue
			}
			dark := far != 2 && far != 4
			if radius == 2 {
				dark = far != 1
			}
			q.set(x, y, dark)
		}
	}
}

// qrAlignment gives the coordinates at which alignment patterns lie, in both directions.
func qrAlignment(version int) []int {
	if version == 1 {
		return nil
	}
	n := version/7 + 2
	step := (4*version + 2*n + 1) / (2*n - 2) * 2
	if version == 32 {
		step = 26 // the standard's exception
	}
	out := make([]int, n)
	out[0] = 6
	for i, at := n-1, 4*version+10; i > 0; i, at = i-1, at-step {
		out[i] = at
	}
	return out
}

// format draws level and mask, twice.
func (q *qrCode) format(level qrLevel, mask int) {
	value := int(level)<<3 | mask
	rest := value
	for range 10 {
		rest = rest<<1 ^ rest>>9*0x537
	}
	bits := (value<<10 | rest) ^ 0x5412
	for i := range 15 {
		dark := bits>>i&1 == 1
		switch {
		case i < 6:
			q.set(8, i, dark)
		case i < 8:
			q.set(8, i+1, dark)
		case i == 8:
			q.set(7, 8, dark)
		default:
			q.set(14-i, 8, dark)
		}
		if i < 8 {
			q.set(q.size-1-i, 8, dark)
		} else {
			q.set(8, q.size-15+i, dark)
		}
	}
	q.set(8, q.size-8, true)
}

// data fills the rest in columns two wide, up and down in turn, from the right.
func (q *qrCode) data(codewords []byte) {
	i := 0
	for right := q.size - 1; right >= 1; right -= 2 {
		if right == 6 {
			right = 5 // the timing pattern has that column
		}
		for k := range q.size {
			y := k
			if (right+1)&2 == 0 {
				y = q.size - 1 - k
			}
			for x := right; x >= right-1; x-- {
				if !q.special[y*q.size+x] && i < 8*len(codewords) {
					q.dark[y*q.size+x] = codewords[i/8]>>(7-i%8)&1 == 1
					i++
				}
			}
		}
	}
}

// mask turns modules round in one of eight patterns, so that no large areas are alike. All repeat after 12 modules.
func (q *qrCode) mask(kind int) {
	for y := range q.size {
		row, special := q.dark[y*q.size:(y+1)*q.size], q.special[y*q.size:(y+1)*q.size]
		turns := qrMasks[kind][y%12]
		for x := range row {
			if turns>>(x%12)&1 == 1 && !special[x] {
				row[x] = !row[x]
			}
		}
	}
}

// qrMasks has a row of each pattern as bits, column 0 the lowest.
var qrMasks = func() (out [8][12]uint16) {
	for kind, turned := range []func(x, y int) bool{
		func(x, y int) bool { return (x+y)%2 == 0 },
		func(x, y int) bool { return y%2 == 0 },
		func(x, y int) bool { return x%3 == 0 },
		func(x, y int) bool { return (x+y)%3 == 0 },
		func(x, y int) bool { return (x/3+y/2)%2 == 0 },
		func(x, y int) bool { return x*y%2+x*y%3 == 0 },
		func(x, y int) bool { return (x*y%2+x*y%3)%2 == 0 },
		func(x, y int) bool { return ((x+y)%2+x*y%3)%2 == 0 },
	} {
		for y := range 12 {
			for x := range 12 {
				if turned(x, y) {
					out[kind][y] |= 1 << x
				}
			}
		}
	}
	return out
}()

// penalty says how hard a camera would find it, by the standard's four rules.
func (q *qrCode) penalty() int {
	n, total, dark := q.size, 0, 0
	column := make([]bool, n)
	for i := range n {
		row := q.dark[i*n : (i+1)*n]
		for k, d := range row {
			column[k] = q.dark[k*n+i]
			if d {
				dark++
			}
		}
		total += qrLinePenalty(row) + qrLinePenalty(column)
		if i == 0 {
			continue
		}
		above := q.dark[(i-1)*n : i*n]
		for k := 1; k < n; k++ {
			if d := row[k]; d == row[k-1] && d == above[k] && d == above[k-1] {
				total += 3
			}
		}
	}
	off := 20*dark - 10*n*n
	return total + 10*(max(off, -off)/(n*n))
}

// qrLinePenalty counts runs of five and more, and what looks like a finder.
func qrLinePenalty(line []bool) int {
	total, run, last := 0, 0, uint(0)
	for k, d := range line {
		if run++; k > 0 && d != line[k-1] {
			run = 1
		}
		switch {
		case run == 5:
			total += 3
		case run > 5:
			total++
		}
		last = last << 1 & (1<<11 - 1)
		if d {
			last |= 1
		}
		if k >= 10 && (last == 0b10111010000 || last == 0b00001011101) {
			total += 40
		}
	}
	return total
}

// qrQuiet is the empty border, in modules.
const qrQuiet = 4

// path is the code as the path of an SVG, one unit a module, within its border; side is the whole length.
func (q *qrCode) path() (d string, side int) {
	var b strings.Builder
	for y := range q.size {
		for x := 0; x < q.size; x++ {
			from := x
			for x < q.size && q.at(x, y) {
				x++
			}
			if x > from {
				n := strconv.Itoa(x - from)
				b.WriteString("M" + strconv.Itoa(from+qrQuiet) + " " + strconv.Itoa(y+qrQuiet) + "h" + n + "v1h-" + n + "z")
			}
		}
	}
	return b.String(), q.size + 2*qrQuiet
}
