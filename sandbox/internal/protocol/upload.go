package protocol

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

// maxParts is how many parts of a form are read.
const maxParts = 100

// upload is the file of a multipart form.
type upload struct {
	filename string
	data     []byte // a part of the request's body
}

// readUpload finds the file in the part "media". It returns an errcode, 0 if
// there is one.
func (r *Request) readUpload() int {
	mediaType, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || mediaType != "multipart/form-data" || params["boundary"] == "" {
		return 41005
	}
	parts := multipart.NewReader(bytes.NewReader(r.Body), params["boundary"])
	found := false
	for range maxParts {
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
			r.upload, found = upload{filename: part.FileName(), data: data}, true
		}
	}
	switch {
	case !found || len(r.upload.data) == 0:
		return 41005
	case r.upload.extension() == "":
		return 40113
	}
	return 0
}

// extension returns the extension of the file's name in lower case, without the
// dot.
func (u upload) extension() string {
	return strings.ToLower(strings.TrimPrefix(path.Ext(u.filename), "."))
}

// mediaKind is WeChat's rule for one type of media (新增临时素材).
type mediaKind struct {
	extensions []string
	limit      int // bytes
	tooLarge   int // errcode above the limit
}

// mediaKinds has the rules for WeChat's types of media.
var mediaKinds = map[string]mediaKind{
	"image": {[]string{"jpg", "jpeg", "png", "gif", "bmp"}, 10 << 20, 40009},
	"voice": {[]string{"amr", "mp3"}, 2 << 20, 40010},
	"video": {[]string{"mp4"}, 10 << 20, 40011},
	"thumb": {[]string{"jpg", "jpeg"}, 64 << 10, 40012},
}

// check returns the errcode that the file gets as media of that type, 0 if it
// is accepted. The extension decides, not the content.
func (u upload) check(kind string) int {
	k, known := mediaKinds[kind]
	switch {
	case !known:
		return 40004
	case !slices.Contains(k.extensions, u.extension()):
		return 40113
	case len(u.data) > k.limit:
		return k.tooLarge
	}
	return 0
}

// contentTypes has the type with which a file is returned, by extension.
var contentTypes = map[string]string{
	"jpg": "image/jpeg", "jpeg": "image/jpeg", "png": "image/png", "gif": "image/gif", "bmp": "image/bmp",
	"amr": "audio/amr", "mp3": "audio/mpeg",
	"mp4": "video/mp4",
}
