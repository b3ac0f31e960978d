package protocol

import (
	"bytes"
	"encoding/binary"
	"io"
	"strconv"
	"strings"
	"time"

	"wxproxy/sandbox/internal/random"
	"wxproxy/sandbox/internal/state"
)

const (
	temporaryLife = 3 * 24 * time.Hour // of temporary media
	maxImage      = 1 << 20            // bytes of a picture for an article
	maxBulk       = 4096               // MiB of a generated download
)

// mediaHandler serves uploads and downloads.
type mediaHandler struct {
	files *state.Media
}

func (h *mediaHandler) endpoints() endpoints {
	return endpoints{
		"/cgi-bin/media/upload":          {post, accountToken, multipartBody, h.uploadTemporary},
		"/cgi-bin/media/get":             {get, accountToken, noBody, h.temporary},
		"/cgi-bin/media/uploadimg":       {post, accountToken, multipartBody, h.uploadImage},
		"/cgi-bin/material/add_material": {post, accountToken, multipartBody, h.uploadPermanent},
		"/cgi-bin/material/get_material": {post, accountToken, jsonBody, h.permanent},
		"/cgi-bin/material/del_material": {post, accountToken, jsonBody, h.deletePermanent},
	}
}

// keep stores the uploaded file and returns its media ID. A zero expires keeps
// it for ever. The data is copied, because it is part of the request's body.
func (h *mediaHandler) keep(r *Request, kind string, expires time.Time) string {
	id := random.Base64(48)
	h.files.Put(state.File{
		ID: id, AppID: r.account.AppID, Kind: kind, Expires: expires,
		Extension: r.upload.extension(), Data: bytes.Clone(r.upload.data),
	})
	return id
}

// uploadTemporary keeps a file for three days. The field of the ID has another
// name for thumbnails.
func (h *mediaHandler) uploadTemporary(r *Request) Response {
	kind := r.Arg("type")
	if code := r.upload.check(kind); code != 0 {
		return fail(code)
	}
	name := "media_id"
	if kind == "thumb" {
		name = "thumb_media_id"
	}
	id := h.keep(r, kind, r.Now.Add(temporaryLife))
	return reply(fields{"type": kind, name: id, "created_at": r.Now.Unix()})
}

// uploadPermanent keeps a file until it is deleted. Pictures have an address as
// well.
func (h *mediaHandler) uploadPermanent(r *Request) Response {
	kind := r.Arg("type")
	if code := r.upload.check(kind); code != 0 {
		return fail(code)
	}
	f := fields{"media_id": h.keep(r, kind, time.Time{})}
	if kind == "image" {
		f["url"] = imageURL()
	}
	return reply(f)
}

// uploadImage takes pictures for articles: jpg or png, smaller than 1 MB. They
// are not kept.
func (h *mediaHandler) uploadImage(r *Request) Response {
	switch ext := r.upload.extension(); {
	case ext != "jpg" && ext != "jpeg" && ext != "png":
		return fail(40113)
	case len(r.upload.data) >= maxImage:
		return fail(40009)
	}
	return reply(fields{"url": imageURL()})
}

// imageURL returns an address on WeChat's picture host. Nothing is there.
func imageURL() string { return "http://mmbiz.qpic.cn/sandbox/" + random.Base64(24) + "/0" }

// temporary returns the bytes of an uploaded file. For a video it returns an
// address, as WeChat does; "sandbox-NNNMiB" is a download of that size.
func (h *mediaHandler) temporary(r *Request) Response {
	id := r.Arg("media_id")
	if id == "" {
		return fail(41006)
	}
	if mib, isBulk := bulkSize(id); isBulk {
		return Response{
			ContentType: "application/octet-stream", Disposition: attachment(id + ".bin"),
			Stream: Bulk(mib), Length: int64(mib) << 20,
		}
	}
	f, known := h.files.Temporary(r.account.AppID, id, r.Now)
	switch {
	case !known:
		return fail(40007)
	case f.Kind == "video":
		return reply(fields{"video_url": videoURL(id)})
	}
	return Response{
		ContentType: contentTypes[f.Extension], Disposition: attachment(id + "." + f.Extension), Body: f.Data,
	}
}

// permanent returns binary data under the type text/plain, as users have seen
// it.
func (h *mediaHandler) permanent(r *Request) Response {
	f, known := h.files.Permanent(r.account.AppID, r.Field("media_id"))
	switch {
	case !known:
		return fail(40007)
	case f.Kind == "video":
		return reply(fields{"title": "", "description": "", "down_url": videoURL(f.ID)})
	}
	return Response{ContentType: textType, Disposition: attachment(f.ID + "." + f.Extension), Body: f.Data}
}

// deletePermanent cannot delete temporary media, as at WeChat.
func (h *mediaHandler) deletePermanent(r *Request) Response {
	f, known := h.files.Permanent(r.account.AppID, r.Field("media_id"))
	if !known {
		return fail(40007)
	}
	h.files.Delete(f.ID)
	return ok()
}

// videoURL returns an address on WeChat's video host. Nothing is there.
func videoURL(id string) string { return "http://vod.weixin.qq.com/sandbox/" + id + ".mp4" }

func attachment(name string) string { return `attachment; filename="` + name + `"` }

// bulkSize parses the media ID "sandbox-NNNMiB".
func bulkSize(id string) (mib int, isBulk bool) {
	number, isBulk := strings.CutPrefix(id, "sandbox-")
	if isBulk {
		number, isBulk = strings.CutSuffix(number, "MiB")
	}
	mib, err := strconv.Atoi(number)
	return mib, isBulk && err == nil && mib > 0 && mib <= maxBulk
}

// Bulk returns the bytes of the media "sandbox-NNNMiB". They are the same each
// time, are made as they are read, and are never held in memory.
//
// Each group of eight bytes is its position, counted from 0, multiplied by an
// odd constant. No two are equal, so a comparison finds whatever is lost or
// swapped.
func Bulk(mib int) io.Reader { return &bulk{left: int64(mib) << 20} }

// bulk generates the bytes of Bulk. It is used by one goroutine.
type bulk struct {
	left   int64  // bytes that were not read yet
	number uint64 // of the next word
	word   [8]byte
	unread int // bytes at the end of word that were not read yet
}

// Read implements io.Reader.
func (b *bulk) Read(p []byte) (n int, err error) {
	if b.left <= 0 {
		return 0, io.EOF
	}
	for n < len(p) && b.left > 0 {
		if b.unread == 0 {
			binary.BigEndian.PutUint64(b.word[:], b.number*0x9E3779B97F4A7C15)
			b.number++
			b.unread = len(b.word)
		}
		k := copy(p[n:], b.word[len(b.word)-b.unread:])
		b.unread -= k
		b.left -= int64(k)
		n += k
	}
	return n, nil
}
