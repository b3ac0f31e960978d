package pages

import "errors"

// A QR code of model 2 (ISO/IEC 18004) in byte mode, which is all that a link needs.

// qrCode is a square of modules; true is dark. There is no quiet zone around it.
type qrCode struct {
	size    int
	dark    []bool
	special []bool // belongs to a pattern, so that neither data nor mask goes there
}

// qrLevel says how much of a code may be unreadable. Its value is that of the standard's format bits.
type qrLevel int

const (
	qrMedium qrLevel = 0 // 15 %
	qrLow    qrLevel = 1 // 7 %
)

// qrBlocks and qrECC are the standard's table 9: by level and version, into how many blocks the data is cut, and
// how many codewords of error correction each gets.
var (
	qrBlocks = [2][41]int{
		{0, 1, 1, 1, 2, 2, 4, 4, 4, 5, 5, 5, 8, 9, 9, 10, 10, 11, 13, 14, 16, 17, 17, 18, 20, 21, 23, 25, 26, 28, 29, 31, 33, 35, 37, 38, 40, 43, 45, 47, 49},
		{0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 4, 4, 4, 4, 4, 6, 6, 6, 6, 7, 8, 8, 9, 9, 10, 12, 12, 12, 13, 14, 15, 16, 17, 18, 19, 19, 20, 21, 22, 24, 25},
	}
	qrECC = [2][41]int{
		{0, 10, 16, 26, 18, 24, 16, 18, 22, 22, 26, 30, 22, 22, 24, 24, 28, 28, 26, 26, 26, 26, 28, 28, 28, 28, 28, 28, 28, 28, 28, 28, 28, 28, 28, 28, 28, 28, 28, 28, 28},
		{0, 7, 10, 15, 20, 26, 18, 20, 24, 30, 18, 20, 24, 26, 30, 22, 24, 28, 30, 28, 28, 28, 28, 30, 30, 26, 28, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30},
	}
)

// qrRoomy is the largest version that is made at the medium level: above it, larger modules help a camera more than
// more correction does.
const qrRoomy = 15

var errQRLong = errors.New("too long for a QR code")

// newQR makes the smallest code that holds text, 2953 bytes at most.
func newQR(text string) (*qrCode, error) {
	for _, level := range []qrLevel{qrMedium, qrLow} {
		for version := 1; version <= 40 && (level == qrLow || version <= qrRoomy); version++ {
			bits := qrHeader(version) + 8*len(text)
			if bits <= 8*qrCapacity(version, level) {
				return drawQR(version, level, text), nil
			}
		}
	}
	return nil, errQRLong
}

// qrHeader is the length of mode and character count, in bits.
func qrHeader(version int) int {
	if version < 10 {
		return 4 + 8
	}
	return 4 + 16
}

// qrCodewords is how many bytes fit into a version beside its patterns.
func qrCodewords(version int) int {
	bits := (16*version+128)*version + 64
	if version >= 2 {
		n := version/7 + 2
		bits -= (25*n-10)*n - 55
		if version >= 7 {
			bits -= 36
		}
	}
	return bits / 8
}

// qrCapacity is how many of them are data.
func qrCapacity(version int, level qrLevel) int {
	return qrCodewords(version) - qrBlocks[level][version]*qrECC[level][version]
}

func drawQR(version int, level qrLevel, text string) *qrCode {
	q := &qrCode{size: 4*version + 17}
	q.dark, q.special = make([]bool, q.size*q.size), make([]bool, q.size*q.size)
	q.patterns(version)
	q.format(level, 0) // reserves the room
	q.data(qrInterleave(version, level, qrPad(version, level, text)))
	best, least := 0, -1
	for mask := range 8 {
		q.mask(mask)
		q.format(level, mask)
		if p := q.penalty(); least < 0 || p < least {
			best, least = mask, p
		}
		q.mask(mask) // a second time takes it off
	}
	q.mask(best)
	q.format(level, best)
	return q
}

// qrPad gives the data codewords: mode, count, text, end, filling.
func qrPad(version int, level qrLevel, text string) []byte {
	var out []byte
	var pending, n uint
	put := func(value, bits uint) {
		for bits > 0 {
			bits--
			pending, n = pending<<1|value>>bits&1, n+1
			if n == 8 {
				out, pending, n = append(out, byte(pending)), 0, 0
			}
		}
	}
	put(4, 4) // byte mode
	put(uint(len(text)), uint(qrHeader(version)-4))
	for _, c := range []byte(text) {
		put(uint(c), 8)
	}
	capacity := qrCapacity(version, level)
	put(0, uint(min(4, 8*capacity-8*len(out)-int(n))))
	put(0, (8-n)%8)
	for filling := uint(0xec); len(out) < capacity; filling ^= 0xec ^ 0x11 {
		put(filling, 8)
	}
	return out
}

// qrInterleave cuts the data into blocks, corrects each, and takes a codeword of each in turn.
func qrInterleave(version int, level qrLevel, data []byte) []byte {
	blocks, ecc, total := qrBlocks[level][version], qrECC[level][version], qrCodewords(version)
	short, length := blocks-total%blocks, total/blocks-ecc // the first blocks may be one shorter
	generator := qrGenerator(ecc)
	parts, corrections := make([][]byte, blocks), make([][]byte, blocks)
	for i := range blocks {
		n := length
		if i >= short {
			n++
		}
		parts[i], data = data[:n], data[n:]
		corrections[i] = qrRemainder(parts[i], generator)
	}
	out := make([]byte, 0, total)
	for i := range length + 1 {
		for _, p := range parts {
			if i < len(p) {
				out = append(out, p[i])
			}
		}
	}
	for i := range ecc {
		for _, c := range corrections {
			out = append(out, c[i])
		}
	}
	return out
}

// qrMul multiplies in GF(256) modulo x^8+x^4+x^3+x^2+1.
func qrMul(a, b byte) byte {
	if a == 0 || b == 0 {
		return 0
	}
	return qrPowers[int(qrLogs[a])+int(qrLogs[b])]
}

// qrPowers are those of 2, twice round, and qrLogs the way back.
var qrPowers, qrLogs = func() (powers [510]byte, logs [256]byte) {
	v := 1
	for i := range 255 {
		powers[i], powers[i+255], logs[v] = byte(v), byte(v), byte(i)
		if v <<= 1; v >= 256 {
			v ^= 0x11d
		}
	}
	return powers, logs
}()

// qrGenerator is the product of all x-2^i for i below degree, without its leading 1.
func qrGenerator(degree int) []byte {
	out := make([]byte, degree)
	out[degree-1] = 1
	root := byte(1)
	for range degree {
		for j := range out {
			out[j] = qrMul(out[j], root)
			if j+1 < degree {
				out[j] ^= out[j+1]
			}
		}
		root = qrMul(root, 2)
	}
	return out
}

func qrRemainder(data, generator []byte) []byte {
	out := make([]byte, len(generator))
	for _, d := range data {
		factor := d ^ out[0]
		copy(out, out[1:])
		out[len(out)-1] = 0
		for i, g := range generator {
			out[i] ^= qrMul(g, factor)
		}
	}
	return out
}
