package pages

import (
	"strconv"
	"strings"

	goqr "github.com/piglig/go-qr"
)

const (
	// qrQuietZone is the width of the empty border that scanners need, in
	// modules (ISO/IEC 18004).
	qrQuietZone = 4
	// qrMaxMediumVersion is the largest version that is made with medium error
	// correction. Above it the code gets the low level, because larger modules
	// help a camera more than more correction does.
	qrMaxMediumVersion = 15
)

// qrPath returns text as a QR code: the data of an SVG path in which one unit
// is one module, and the side length of the whole code, quiet zone included.
// The code is the smallest one that holds text. An error means that text is
// longer than the 2,953 bytes that fit.
//
// The path is made here because the library writes whole SVG documents only.
// The page needs its own <svg> element, with a class, a label and a size.
func qrPath(text string) (path string, side int, err error) {
	code, err := encodeQR(text)
	if err != nil {
		return "", 0, err
	}
	var b strings.Builder
	for y := range code.Size() {
		// One rectangle for each run of dark modules in a row.
		for x := 0; x < code.Size(); x++ {
			start := x
			for code.Module(x, y) { // false outside the code
				x++
			}
			if x > start {
				width := strconv.Itoa(x - start)
				left, top := strconv.Itoa(start+qrQuietZone), strconv.Itoa(y+qrQuietZone)
				b.WriteString("M" + left + " " + top + "h" + width + "v1h-" + width + "z")
			}
		}
	}
	return b.String(), code.Size() + 2*qrQuietZone, nil
}

// encodeQR encodes text in byte mode.
func encodeQR(text string) (*goqr.QrCode, error) {
	bytes, err := goqr.MakeBytes([]byte(text))
	if err != nil {
		return nil, err
	}
	segments := []*goqr.QrSegment{bytes}
	const anyMask, keepLevel = -1, false
	code, err := goqr.EncodeSegments(
		segments, goqr.Medium, goqr.MinVersion, qrMaxMediumVersion, anyMask, keepLevel)
	if err != nil {
		return goqr.EncodeSegments(
			segments, goqr.Low, goqr.MinVersion, goqr.MaxVersion, anyMask, keepLevel)
	}
	return code, nil
}
