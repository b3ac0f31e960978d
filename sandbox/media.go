package sandbox

import (
	"bytes"
	"encoding/binary"
	"io"
	"strconv"
	"strings"
	"time"
)

const (
	mediaLife  = 3 * 24 * time.Hour // of temporary media
	mediaSpace = 64 << 20           // bytes kept of all accounts together; the oldest give way
	maxMiB     = 4096               // of a made-up download
)

// file is media that was uploaded.
type file struct {
	id        string
	appid     string
	kind      string
	extension string
	data      []byte
	expires   time.Time // zero: permanent
}

type mediaStore struct {
	files map[string]*file
	order []string
	size  int
}

func newMediaStore() mediaStore { return mediaStore{files: make(map[string]*file)} }

func (m *mediaStore) put(f *file) {
	m.files[f.id] = f
	m.order = append(m.order, f.id)
	m.size += len(f.data)
	for m.size > mediaSpace || len(m.order) > maxTokens {
		m.remove(m.order[0])
		m.order = m.order[1:]
	}
}

// remove leaves the name in order, where it is met again in time.
func (m *mediaStore) remove(id string) {
	if f := m.files[id]; f != nil {
		m.size -= len(f.data)
		delete(m.files, id)
	}
}

// keep stores the call's upload; life 0 is for ever.
func (s *WeChat) keep(c *call, kind string, life time.Duration) *file {
	f := &file{id: random(48), appid: c.account.appid, kind: kind, extension: c.upload.extension(), data: bytes.Clone(c.upload.data)}
	if life > 0 {
		f.expires = c.now.Add(life)
	}
	s.media.put(f)
	return f
}

func (s *WeChat) uploadMedia(c *call) answer {
	kind := c.arg("type")
	if code := c.upload.check(kind); code != 0 {
		return fail(code)
	}
	f := s.keep(c, kind, mediaLife)
	name := "media_id"
	if kind == "thumb" {
		name = "thumb_media_id"
	}
	return reply(fields{"type": kind, name: f.id, "created_at": c.now.Unix()})
}

// uploadImage is for pictures in articles: jpg or png, below 1 MB.
func (s *WeChat) uploadImage(c *call) answer {
	switch ext := c.upload.extension(); {
	case ext != "jpg" && ext != "jpeg" && ext != "png":
		return fail(40113)
	case len(c.upload.data) >= 1<<20:
		return fail(40009)
	}
	return reply(fields{"url": "http://mmbiz.qpic.cn/sandbox/" + random(24) + "/0"})
}

func (s *WeChat) addMaterial(c *call) answer {
	kind := c.arg("type")
	if code := c.upload.check(kind); code != 0 {
		return fail(code)
	}
	f := fields{"media_id": s.keep(c, kind, 0).id}
	if kind == "image" {
		f["url"] = "http://mmbiz.qpic.cn/sandbox/" + random(24) + "/0"
	}
	return reply(f)
}

// file finds what the account has uploaded, be it temporary or permanent.
func (s *WeChat) file(c *call, id string, permanent bool) *file {
	f := s.media.files[id]
	if f == nil || f.appid != c.account.appid || f.expires.IsZero() != permanent || !permanent && !c.now.Before(f.expires) {
		return nil
	}
	return f
}

// getMedia gives the bytes back. A video comes as an address, as at WeChat; "sandbox-NNNMiB" is a download of that
// size.
func (s *WeChat) getMedia(c *call) answer {
	id := c.arg("media_id")
	if id == "" {
		return fail(41006)
	}
	if n, isBulk := bulkSize(id); isBulk {
		return answer{
			contentType: "application/octet-stream", disposition: `attachment; filename="` + id + `.bin"`,
			stream: Bulk(n), length: int64(n) << 20,
		}
	}
	f := s.file(c, id, false)
	switch {
	case f == nil:
		return fail(40007)
	case f.kind == "video":
		return reply(fields{"video_url": "http://vod.weixin.qq.com/sandbox/" + id + ".mp4"})
	}
	return answer{contentType: contentTypes[f.extension], disposition: `attachment; filename="` + id + "." + f.extension + `"`, body: f.data}
}

// getMaterial gives binary data under the type text/plain, as users have seen it.
func (s *WeChat) getMaterial(c *call) answer {
	f := s.file(c, c.field("media_id"), true)
	switch {
	case f == nil:
		return fail(40007)
	case f.kind == "video":
		return reply(fields{"title": "", "description": "", "down_url": "http://vod.weixin.qq.com/sandbox/" + f.id + ".mp4"})
	}
	return answer{contentType: textType, disposition: `attachment; filename="` + f.id + "." + f.extension + `"`, body: f.data}
}

func (s *WeChat) deleteMaterial(c *call) answer {
	f := s.file(c, c.field("media_id"), true)
	if f == nil {
		return fail(40007)
	}
	s.media.remove(f.id)
	return ok()
}

func bulkSize(id string) (mib int, is bool) {
	number, is := strings.CutSuffix(strings.TrimPrefix(id, "sandbox-"), "MiB")
	n, err := strconv.Atoi(number)
	return n, is && err == nil && strings.HasPrefix(id, "sandbox-") && n > 0 && n <= maxMiB
}

// Bulk gives the bytes of the media "sandbox-NNNMiB": the same ones each time, made as they are read and never
// held. Every eight bytes are their own number, the first being 0, multiplied by an odd constant: no two are
// alike, so that a test that compares sees whatever is lost or swapped.
func Bulk(mib int) io.Reader { return &bulk{left: int64(mib) << 20} }

type bulk struct {
	left   int64
	number uint64
	word   [8]byte
	rest   int // of word, not given yet
}

func (b *bulk) Read(p []byte) (n int, err error) {
	if b.left <= 0 {
		return 0, io.EOF
	}
	for n < len(p) && b.left > 0 {
		if b.rest == 0 {
			binary.BigEndian.PutUint64(b.word[:], b.number*0x9E3779B97F4A7C15)
			b.number++
			b.rest = 8
		}
		k := copy(p[n:], b.word[8-b.rest:])
		b.rest -= k
		b.left -= int64(k)
		n += k
	}
	return n, nil
}
