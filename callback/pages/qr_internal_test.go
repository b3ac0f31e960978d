package pages

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"
)

// What a scanner (zbarimg) has read back as the text, module for module.
func TestQRCodesThatAScannerHasRead(t *testing.T) {
	f := func(text, want string) {
		t.Helper()
		q, err := newQR(text)
		if err != nil {
			t.Fatal(err)
		}
		d, _ := q.path()
		if sum := sha256.Sum256([]byte(d)); hex.EncodeToString(sum[:8]) != want {
			t.Errorf("%d bytes: another code, %x", len(text), sum[:8])
		}
	}
	long := strings.Repeat("https://a.b/?c=@", 200)
	f(long[:1], "5373300a9218eb9b")
	f(long[:14], "0cd91dd84cd12643")
	f(long[:15], "e43efa70c0fc2f1a")
	f(long[:100], "bebf12c630128cc7")
	f(long[:213], "11efdaedecba2826")
	f(long[:520], "c564864d085fe3f1")
	f(long[:1100], "eb5bbc74072bfc73")
	f(long[:2953], "d15061ca4161c3bf")
	if _, err := newQR(long[:2954]); !errors.Is(err, errQRLong) {
		t.Errorf("2954 bytes: %v", err)
	}
}

// Codes of many versions, at both levels, are read back by the standard's reference algorithm; no codeword may need correction.
func TestQRCodesReadBack(t *testing.T) {
	versions := map[int]bool{}
	for n := 0; n <= 2953; n = n*10/9 + 1 {
		text := strings.Repeat("wxproxy/\x00\xff~", 300)[:n]
		q, err := newQR(text)
		if err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		versions[(q.size-17)/4] = true
		if got := readQR(t, q); got != text {
			t.Fatalf("%d bytes: read %d others", n, len(got))
		}
	}
	if len(versions) < 20 {
		t.Errorf("only versions %v", versions)
	}
}

// readQR reads a flawless code.
func readQR(t *testing.T, q *qrCode) string {
	t.Helper()
	format, other := 0, 0
	for i := range 15 { // both copies, from bit 14 down
		var x, y int
		switch b := 14 - i; {
		case b >= 9:
			x, y = 14-b, 8
		case b == 8:
			x, y = 7, 8
		case b >= 6:
			x, y = 8, b+1
		default:
			x, y = 8, b
		}
		format = format<<1 | bit(q.at(x, y))
		if i < 7 {
			other = other<<1 | bit(q.at(8, q.size-1-i))
		} else {
			other = other<<1 | bit(q.at(q.size-15+i, 8))
		}
	}
	if format != other {
		t.Fatalf("the two formats differ: %015b %015b", format, other)
	}
	// The standard's list of all 32 formats, of which these are level L and M (table C.1).
	known := []int{
		0x5412, 0x5125, 0x5e7c, 0x5b4b, 0x45f9, 0x40ce, 0x4f97, 0x4aa0,
		0x77c4, 0x72f3, 0x7daa, 0x789d, 0x662f, 0x6318, 0x6c41, 0x6976,
	}
	at := slices.Index(known, format)
	if at < 0 {
		t.Fatalf("no format: %015b", format)
	}
	level, mask := qrLevel(at/8), at%8
	version := (q.size - 17) / 4
	q.mask(mask)
	defer q.mask(mask)
	raw := make([]byte, qrCodewords(version))
	n := 0
	for right := q.size - 1; right >= 1; right -= 2 {
		if right == 6 {
			right = 5
		}
		up := (right+1)&2 == 0
		for k := range q.size {
			y := k
			if up {
				y = q.size - 1 - k
			}
			for _, x := range []int{right, right - 1} {
				if q.special[y*q.size+x] || n/8 >= len(raw) {
					continue
				}
				raw[n/8] = raw[n/8]<<1 | byte(bit(q.at(x, y)))
				n++
			}
		}
	}
	blocks, ecc := qrBlocks[level][version], qrECC[level][version]
	length := len(raw) / blocks
	parts := make([][]byte, blocks)
	for i := range length - ecc + 1 {
		for j := range parts {
			if i < length-ecc || j >= blocks-len(raw)%blocks {
				parts[j], raw = append(parts[j], raw[0]), raw[1:]
			}
		}
	}
	var data []byte
	for _, p := range parts {
		data = append(data, p...)
	}
	for range ecc {
		for j := range parts {
			parts[j], raw = append(parts[j], raw[0]), raw[1:]
		}
	}
	for _, p := range parts { // a codeword is a multiple of the generator: zero at all its roots
		root := byte(1)
		for range ecc {
			sum := byte(0)
			for _, c := range p {
				sum = qrMul(sum, root) ^ c
			}
			if sum != 0 {
				t.Fatal("a block would need correction")
			}
			root = qrMul(root, 2)
		}
	}
	at = 0
	take := func(bits int) (v int) {
		for range bits {
			v, at = v<<1|int(data[at/8]>>(7-at%8)&1), at+1
		}
		return v
	}
	if mode := take(4); mode != 4 {
		t.Fatalf("mode %d", mode)
	}
	count := take(qrHeader(version) - 4)
	var text []byte
	for range count {
		text = append(text, byte(take(8)))
	}
	return string(text)
}

func bit(dark bool) int {
	if dark {
		return 1
	}
	return 0
}
