package sandbox

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"path"
	"slices"
	"strings"
)

// upload is the file of a multipart form.
type upload struct {
	filename string
	data     []byte // part of the request's body
}

// readUpload finds the part "media" with its file, and gives an errcode, 0 for good.
func (c *call) readUpload() int {
	kind, params, err := mime.ParseMediaType(c.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/form-data" || params["boundary"] == "" {
		return 41005
	}
	parts := multipart.NewReader(bytes.NewReader(c.body), params["boundary"])
	found := false
	for range 100 {
		part, err := parts.NextRawPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 47001
		}
		data, err := io.ReadAll(part)
		if err != nil {
			return 47001 // the closing boundary is missing: the form was cut off
		}
		if part.FormName() == "media" {
			c.upload, found = upload{filename: part.FileName(), data: data}, true
		}
	}
	switch {
	case !found || len(c.upload.data) == 0:
		return 41005
	case c.upload.extension() == "":
		return 40113
	}
	return 0
}

func (u upload) extension() string {
	return strings.ToLower(strings.TrimPrefix(path.Ext(u.filename), "."))
}

// mediaKind is what WeChat says of a type of media (新增临时素材).
type mediaKind struct {
	extensions []string
	limit      int // bytes
	tooLarge   int // errcode
}

var mediaKinds = map[string]mediaKind{
	"image": {[]string{"jpg", "jpeg", "png", "gif", "bmp"}, 10 << 20, 40009},
	"voice": {[]string{"amr", "mp3"}, 2 << 20, 40010},
	"video": {[]string{"mp4"}, 10 << 20, 40011},
	"thumb": {[]string{"jpg", "jpeg"}, 64 << 10, 40012},
}

// check gives the errcode with which the file is refused as media of that type, 0 for good.
func (u upload) check(kind string) int {
	k, known := mediaKinds[kind]
	switch {
	case !known:
		return 40004
	case !slices.Contains(k.extensions, u.extension()):
		return 40113 // the extension decides, not the content
	case len(u.data) > k.limit:
		return k.tooLarge
	}
	return 0
}

var contentTypes = map[string]string{
	"jpg": "image/jpeg", "jpeg": "image/jpeg", "png": "image/png", "gif": "image/gif", "bmp": "image/bmp", "amr": "audio/amr", "mp3": "audio/mpeg", "mp4": "video/mp4",
}
