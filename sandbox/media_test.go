package sandbox_test

import (
	"bytes"
	"io"
	"mime/multipart"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"wxproxy/sandbox"
)

// multipartBody returns a form with one file, and its content type.
func multipartBody(field, filename, data string) (contentType, body string) {
	var b bytes.Buffer
	m := multipart.NewWriter(&b)
	p, _ := m.CreateFormFile(field, filename)
	io.WriteString(p, data)
	m.Close()
	return m.FormDataContentType(), b.String()
}

func (a accountEnv) upload(path, field, filename, data string) response {
	a.t.Helper()
	contentType, body := multipartBody(field, filename, data)
	return a.do("POST", with(path, a.token), body, "Content-Type", contentType)
}

func TestMediaRoundTrip(t *testing.T) {
	a := newAccountEnv(t, shop)
	const picture = "\xff\xd8\x00picture"
	id := a.upload("/cgi-bin/media/upload?type=image", "media", "a.JPG", picture).wantCode(0).field("media_id")
	g := a.getAs("/cgi-bin/media/get?media_id=" + id)
	if string(g.body) != picture || g.header.Get("Content-Type") != "image/jpeg" ||
		g.header.Get("Content-Disposition") != `attachment; filename="`+id+`.jpg"` {
		t.Errorf("got %q %v, want the picture with its type and name", g.body, g.header)
	}
	other, _ := a.grant(mini)
	a.get(with("/cgi-bin/media/get?media_id="+id, other)).wantCode(40007)
	a.getAs("/cgi-bin/media/get").wantCode(41006)
	a.postJSON("/cgi-bin/material/get_material", js("media_id", id)).wantCode(40007)

	video := a.upload("/cgi-bin/media/upload?type=video", "media", "a.mp4", "x").wantCode(0).field("media_id")
	if g := a.getAs("/cgi-bin/media/get?media_id=" +
		video).wantCode(0); !strings.HasPrefix(g.field("video_url"), "http://") {
		t.Errorf("video: got %s, want a video_url", g.body)
	}
	if a.upload("/cgi-bin/media/upload?type=thumb", "media", "a.jpg",
		"x").wantCode(0).field("thumb_media_id") == "" {
		t.Error("thumbnail: got no thumb_media_id")
	}

	kept := a.upload("/cgi-bin/material/add_material?type=voice", "media", "a.mp3",
		"sound").wantCode(0).field("media_id")
	a.clock.advance(3 * 24 * time.Hour)
	a.token, _ = a.grant(shop)
	a.getAs("/cgi-bin/media/get?media_id=" + id).wantCode(40007)
	if g := a.postJSON("/cgi-bin/material/get_material", js("media_id", kept)); string(g.body) != "sound" ||
		g.header.Get("Content-Type") != "text/plain" {
		t.Errorf("permanent material: got %q %v, want the file as text/plain", g.body, g.header)
	}
	a.postJSON("/cgi-bin/material/del_material", js("media_id", kept)).wantCode(0)
	a.postJSON("/cgi-bin/material/get_material", js("media_id", kept)).wantCode(40007)
}

func TestUploadErrors(t *testing.T) {
	a := newAccountEnv(t, shop)
	up := func(kind, field, filename, data string) response {
		t.Helper()
		return a.upload("/cgi-bin/media/upload?type="+kind, field, filename, data)
	}
	up("image", "file", "a.jpg", "x").wantCode(41005)
	up("image", "media", "a.jpg", "").wantCode(41005)
	up("image", "media", "a", "x").wantCode(40113)
	up("image", "media", "a.mp4", "x").wantCode(40113)
	up("song", "media", "a.mp3", "x").wantCode(40004)
	up("thumb", "media", "a.jpg", strings.Repeat("x", 64<<10+1)).wantCode(40012)
	up("voice", "media", "a.amr", strings.Repeat("x", 2<<20+1)).wantCode(40010)
	a.upload("/cgi-bin/media/uploadimg", "media", "a.gif", "x").wantCode(40113)
	a.upload("/cgi-bin/media/uploadimg", "media", "a.png", strings.Repeat("x", 1<<20)).wantCode(40009)
	a.upload("/cgi-bin/media/uploadimg", "media", "a.png", "x").wantCode(0)

	contentType, body := multipartBody("media", "a.jpg", "xxxx")
	a.do("POST", with("/cgi-bin/media/upload?type=image", a.token), body[:len(body)-20], "Content-Type",
		contentType).wantCode(47001)
	a.do("POST", with("/cgi-bin/media/upload?type=image", a.token), body, "Content-Type",
		"multipart/form-data").wantCode(41005)
	a.do("POST", with("/cgi-bin/media/upload?type=image", a.token), "", "Content-Type", contentType).wantCode(44002)
	a.Expire(shop)
	up("image", "file", "a.jpg", "x").wantCode(42001)
}

func TestMediaIsBounded(t *testing.T) {
	a := newAccountEnv(t, shop)
	first := a.upload("/cgi-bin/media/upload?type=image", "media", "a.jpg", "first").wantCode(0).field("media_id")
	big := strings.Repeat("x", 10<<20)
	for range 7 {
		a.upload("/cgi-bin/media/upload?type=image", "media", "a.jpg", big).wantCode(0)
	}
	a.getAs("/cgi-bin/media/get?media_id=" + first).wantCode(40007)
}

func TestBulk(t *testing.T) {
	a := newAccountEnv(t, shop)
	g := a.getAs("/cgi-bin/media/get?media_id=sandbox-3MiB")
	want, err := io.ReadAll(sandbox.Bulk(3))
	must(t, err)
	if len(want) != 3<<20 || !bytes.Equal(g.body, want) || g.header.Get("Content-Length") != "3145728" {
		t.Errorf("got %d bytes %v, want the %d of Bulk(3)", len(g.body), g.header, len(want))
	}
	if err := iotest.TestReader(io.LimitReader(sandbox.Bulk(1), 100), want[:100]); err != nil {
		t.Errorf("reading Bulk: %v", err)
	}
	for _, id := range []string{"sandbox-0MiB", "sandbox--1MiB", "sandbox-9999MiB", "sandbox-MiB", "1MiB",
		"sandbox-1"} {
		a.getAs("/cgi-bin/media/get?media_id=" + id).wantCode(40007)
	}
}
