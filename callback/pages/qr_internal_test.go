package pages

import (
	"image"
	"image/color"
	"image/draw"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/makiuchi-d/gozxing"
	"github.com/makiuchi-d/gozxing/qrcode"
)

var qrRun = regexp.MustCompile(`^M(\d+) (\d+)h(\d+)v1h-(\d+)z`)

// renderQR draws the path as a browser would, with scale pixels a module. It
// fails if the path leaves the area inside the quiet zone.
func renderQR(t *testing.T, path string, side int) image.Image {
	t.Helper()
	const scale = 3
	img := image.NewGray(image.Rect(0, 0, scale*side, scale*side))
	draw.Draw(img, img.Bounds(), image.White, image.Point{}, draw.Src)
	inner := image.Rect(4, 4, side-4, side-4)
	for path != "" {
		m := qrRun.FindStringSubmatch(path)
		if m == nil || m[3] != m[4] {
			t.Fatalf("got %.40q in the path, want a run of modules", path)
		}
		path = path[len(m[0]):]
		x, _ := strconv.Atoi(m[1])
		y, _ := strconv.Atoi(m[2])
		width, _ := strconv.Atoi(m[3])
		run := image.Rect(x, y, x+width, y+1)
		if !run.In(inner) {
			t.Fatalf("got dark modules at %v, want them within %v, inside the quiet zone", run, inner)
		}
		run = image.Rect(scale*x, scale*y, scale*(x+width), scale*(y+1))
		draw.Draw(img, run, image.NewUniform(color.Black), image.Point{}, draw.Src)
	}
	return img
}

// scanQR reads a QR code from an image, and its error correction level.
func scanQR(t *testing.T, img image.Image) (text, level string) {
	t.Helper()
	bitmap, err := gozxing.NewBinaryBitmapFromImage(img)
	if err != nil {
		t.Fatal(err)
	}
	hints := map[gozxing.DecodeHintType]any{
		gozxing.DecodeHintType_PURE_BARCODE:  true,
		gozxing.DecodeHintType_CHARACTER_SET: "ISO-8859-1", // one character a byte
	}
	result, err := qrcode.NewQRCodeReader().Decode(bitmap, hints)
	if err != nil {
		t.Fatalf("scanning the code: %v", err)
	}
	level, _ = result.GetResultMetadata()[gozxing.ResultMetadataType_ERROR_CORRECTION_LEVEL].(string)
	return result.GetText(), level
}

func TestQRCodeIsReadByAScanner(t *testing.T) {
	link := strings.Repeat("https://open.weixin.qq.com/wxaopen/safe/bindcomponent?a=1&b=%2F#wechat_redirect/", 40)
	for _, tc := range []struct {
		bytes, side int
		level       string
	}{
		{1, 21 + 8, "M"},
		{14, 21 + 8, "M"}, // the most that version 1 holds
		{15, 25 + 8, "M"},
		{100, 41 + 8, "M"},
		{360, 73 + 8, "M"},
		{412, 77 + 8, "M"}, // the most that version 15 holds
		{413, 69 + 8, "L"},
		{1100, 113 + 8, "L"},
		{2000, 149 + 8, "L"},
		{2953, 177 + 8, "L"}, // the most that any code holds
	} {
		path, side, err := qrPath(link[:tc.bytes])
		if err != nil {
			t.Errorf("%d bytes: %v", tc.bytes, err)
			continue
		}
		if side != tc.side {
			t.Errorf("%d bytes: got %d modules a side, want %d", tc.bytes, side, tc.side)
		}
		text, level := scanQR(t, renderQR(t, path, side))
		if text != link[:tc.bytes] || level != tc.level {
			t.Errorf("%d bytes: got level %s and %d bytes %.60q…, want level %s and %.60q…",
				tc.bytes, level, len(text), text, tc.level, link[:tc.bytes])
		}
	}
}

func TestTooLongTextHasNoQRCode(t *testing.T) {
	if path, _, err := qrPath(strings.Repeat("a", 2954)); err == nil {
		t.Errorf("2,954 bytes: got a path of %d bytes, want an error", len(path))
	}
}

// Modules have three pixels if the code then has at most 300, otherwise two.
func TestPixelsOfQRCode(t *testing.T) {
	for side, want := range map[int]int{29: 87, 100: 300, 101: 202, 185: 370} {
		if got := (&links{Side: side}).Pixels(); got != want {
			t.Errorf("side of %d modules: got %d pixels, want %d", side, got, want)
		}
	}
}
