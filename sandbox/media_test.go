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

// form makes a multipart body with one file.
func form(field, filename, data string) (contentType, body string) {
	var b bytes.Buffer
	m := multipart.NewWriter(&b)
	p, _ := m.CreateFormFile(field, filename)
	io.WriteString(p, data)
	m.Close()
	return m.FormDataContentType(), b.String()
}

func (a accountWorld) upload(path, field, filename, data string) got {
	a.t.Helper()
	contentType, body := form(field, filename, data)
	return a.do("POST", with(path, a.token), body, "Content-Type", contentType)
}

func TestMediaComesBack(t *testing.T) {
	a := newAccount(t, shop)
	const bytes = "\xff\xd8\x00picture"
	id := a.upload("/cgi-bin/media/upload?type=image", "media", "a.JPG", bytes).want(0).field("media_id")
	g := a.read("/cgi-bin/media/get?media_id=" + id)
	if string(g.body) != bytes || g.header.Get("Content-Type") != "image/jpeg" || g.header.Get("Content-Disposition") != `attachment; filename="`+id+`.jpg"` {
		t.Errorf("%q %v", g.body, g.header)
	}
	other, _ := a.grant(mini)
	a.get(with("/cgi-bin/media/get?media_id="+id, other)).want(40007)
	a.read("/cgi-bin/media/get").want(41006)
	a.send("/cgi-bin/material/get_material", js("media_id", id)).want(40007)

	video := a.upload("/cgi-bin/media/upload?type=video", "media", "a.mp4", "x").want(0).field("media_id")
	if g := a.read("/cgi-bin/media/get?media_id=" + video).want(0); !strings.HasPrefix(g.field("video_url"), "http://") {
		t.Errorf("%s", g.body)
	}
	if a.upload("/cgi-bin/media/upload?type=thumb", "media", "a.jpg", "x").want(0).field("thumb_media_id") == "" {
		t.Error("no thumb_media_id")
	}

	kept := a.upload("/cgi-bin/material/add_material?type=voice", "media", "a.mp3", "sound").want(0).field("media_id")
	a.clock.pass(3 * 24 * time.Hour)
	a.token, _ = a.grant(shop)
	a.read("/cgi-bin/media/get?media_id=" + id).want(40007)
	if g := a.send("/cgi-bin/material/get_material", js("media_id", kept)); string(g.body) != "sound" || g.header.Get("Content-Type") != "text/plain" {
		t.Errorf("%q %v", g.body, g.header)
	}
	a.send("/cgi-bin/material/del_material", js("media_id", kept)).want(0)
	a.send("/cgi-bin/material/get_material", js("media_id", kept)).want(40007)
}

func TestUploadsThatAreRefused(t *testing.T) {
	a := newAccount(t, shop)
	up := func(kind, field, filename, data string) got {
		t.Helper()
		return a.upload("/cgi-bin/media/upload?type="+kind, field, filename, data)
	}
	up("image", "file", "a.jpg", "x").want(41005)
	up("image", "media", "a.jpg", "").want(41005)
	up("image", "media", "a", "x").want(40113)
	up("image", "media", "a.mp4", "x").want(40113)
	up("song", "media", "a.mp3", "x").want(40004)
	up("thumb", "media", "a.jpg", strings.Repeat("x", 64<<10+1)).want(40012)
	up("voice", "media", "a.amr", strings.Repeat("x", 2<<20+1)).want(40010)
	a.upload("/cgi-bin/media/uploadimg", "media", "a.gif", "x").want(40113)
	a.upload("/cgi-bin/media/uploadimg", "media", "a.png", strings.Repeat("x", 1<<20)).want(40009)
	a.upload("/cgi-bin/media/uploadimg", "media", "a.png", "x").want(0)

	contentType, body := form("media", "a.jpg", "xxxx")
	a.do("POST", with("/cgi-bin/media/upload?type=image", a.token), body[:len(body)-20], "Content-Type", contentType).want(47001)
	a.do("POST", with("/cgi-bin/media/upload?type=image", a.token), body, "Content-Type", "multipart/form-data").want(41005)
	a.do("POST", with("/cgi-bin/media/upload?type=image", a.token), "", "Content-Type", contentType).want(44002)
	a.Expire(shop)
	up("image", "file", "a.jpg", "x").want(42001)
}

func TestMediaIsBounded(t *testing.T) {
	a := newAccount(t, shop)
	first := a.upload("/cgi-bin/media/upload?type=image", "media", "a.jpg", "first").want(0).field("media_id")
	big := strings.Repeat("x", 10<<20)
	for range 7 {
		a.upload("/cgi-bin/media/upload?type=image", "media", "a.jpg", big).want(0)
	}
	a.read("/cgi-bin/media/get?media_id=" + first).want(40007)
}

func TestBulk(t *testing.T) {
	a := newAccount(t, shop)
	g := a.read("/cgi-bin/media/get?media_id=sandbox-3MiB")
	want, err := io.ReadAll(sandbox.Bulk(3))
	must(t, err)
	if len(want) != 3<<20 || !bytes.Equal(g.body, want) || g.header.Get("Content-Length") != "3145728" {
		t.Errorf("%d bytes, want %d; %v", len(g.body), len(want), g.header)
	}
	if err := iotest.TestReader(io.LimitReader(sandbox.Bulk(1), 100), want[:100]); err != nil {
		t.Error(err)
	}
	for _, id := range []string{"sandbox-0MiB", "sandbox--1MiB", "sandbox-9999MiB", "sandbox-MiB", "1MiB", "sandbox-1"} {
		a.read("/cgi-bin/media/get?media_id=" + id).want(40007)
	}
}
