package wechat_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"wxproxy/wechat"
)

// The example of WeChat's documentation (消息加解密,
// doc/oplatform/Third-party_Platforms/2.0/api/Before_Develop/message_push).
const (
	docToken     = "AAAAA"
	docKey       = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	docAppID     = "wx134c8103faa5a59e"
	docTime      = "1715943329"
	docNonce     = "1590219412"
	docSignature = "6c12a4205838198b8fa631b3220723bb07f1015c"
	docEncrypt   = "D7yzvUNAL930rd28wf21s4hvXhz0L6Uit/p2Di6C5DHyYGpEgdBRnKjBec34JwoQXicwaZC7fOVihW80F4VtsdvE//1vr7oAbqjDv8KenVp+ajKYpJnyQ4zMRhIC+a31fCVOMC03FfzV/QuC94kBP55a+Za3sJgvAn+ZbsNqZI5DkyuzkhQN8OBqCzFhizGmy0xpM0MEA4agpvE+RuNO1rhHTtuJB5yltw1FiYzecSXJ+y/D2r81VkRn2eYjh2ltsoyfbDR7Is6ookXIFxTfyeNyeHxMeT4KN5WpCDmSbTcUYrbBUlkGLJ9n/rU8YOywma6G7aTb7KZKOqCxgfoUlYEZPk4FUL/TK7ShriFDMVCLyjQJ15Ob++agDWtcxhfUfe6HIoIpRW8mKNBQiY/Jd1svvuskA1wLef1RTtzKfMpagSCX/laZINmdnX4zrF6kIaR9P4xQrWXbsTFHTYe0Mg=="
	docMessage   = `<xml><ToUserName><![CDATA[gh_97417a04a28d]]></ToUserName>
<FromUserName><![CDATA[o9AgO5Kd5ggOC-bXrbNODIiE3bGY]]></FromUserName>
<CreateTime>1715943329</CreateTime>
<MsgType><![CDATA[event]]></MsgType>
<Event><![CDATA[debug_demo]]></Event>
<debug_str><![CDATA[hello world]]></debug_str>
</xml>`

	docReply          = `<xml><demo_resp>[CDATA[good luck]]</demo_resp></xml>`
	docReplyRandom    = "999951349e8ee746"
	docReplyTime      = "1713424427"
	docReplyNonce     = "415670741"
	docReplySignature = "03e0812039325c2712ef5f0f980fd14c70d6e307"
	docReplyEncrypt   = "hE8R6mGXHkJJjU72KxzKUd1GEkKJaEZq7vRL8XgK3o+00k8JGq6+pZJUIlTSyhsX+bxIBQ72g3GyvDdIZcr6+3HAZbSvPT9t/o11MI7d6WELwqrGd7jMnV0zv3Zc9Nq7"
)

func newCrypt(t testing.TB, token, key, appid string) *wechat.Crypt {
	t.Helper()
	c, err := wechat.NewCrypt(wechat.NewSecret(token), wechat.NewSecret(key), appid)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func docCrypt(t testing.TB) *wechat.Crypt { return newCrypt(t, docToken, docKey, docAppID) }

func TestDocumentedPushIsOpened(t *testing.T) {
	c := docCrypt(t)
	if got := c.Signature(docTime, docNonce, docEncrypt); got != docSignature {
		t.Errorf("msg_signature: got %s, want %s", got, docSignature)
	}
	if got, want := c.Signature(docTime, docNonce, ""), "cc0c594499c1634947d5b502f158ee518947db27"; got != want {
		t.Errorf("signature: got %s, want %s", got, want)
	}
	got, err := c.Open(docSignature, docTime, docNonce, docEncrypt)
	if err != nil || string(got) != docMessage {
		t.Errorf("Open: got %q, %v, want %q", got, err, docMessage)
	}
}

func TestDocumentedReplyIsEncrypted(t *testing.T) {
	c := docCrypt(t)
	got := c.EncryptWith([]byte(docReply), [16]byte([]byte(docReplyRandom)))
	if got != docReplyEncrypt {
		t.Errorf("EncryptWith: got %s, want %s", got, docReplyEncrypt)
	}
	if got := c.Signature(docReplyTime, docReplyNonce, got); got != docReplySignature {
		t.Errorf("msg_signature: got %s, want %s", got, docReplySignature)
	}
}

func TestOpenRejectsWrongSignatures(t *testing.T) {
	c := docCrypt(t)
	weak := c.Signature(docTime, docNonce, "")
	for name, in := range map[string][4]string{
		"none":                     {"", docTime, docNonce, docEncrypt},
		"cut":                      {docSignature[:39], docTime, docNonce, docEncrypt},
		"longer":                   {docSignature + "0", docTime, docNonce, docEncrypt},
		"capitals":                 {strings.ToUpper(docSignature), docTime, docNonce, docEncrypt},
		"of the query alone":       {weak, docTime, docNonce, docEncrypt},
		"of the query, no message": {weak, docTime, docNonce, ""},
		"another time":             {docSignature, "1715943330", docNonce, docEncrypt},
		"another nonce":            {docSignature, docTime, "1590219413", docEncrypt},
		"another message":          {docSignature, docTime, docNonce, docReplyEncrypt},
	} {
		if msg, err := c.Open(in[0], in[1], in[2], in[3]); !errors.Is(err, wechat.ErrSignature) || msg != nil {
			t.Errorf("Open, signature %s: got %q, %v, want ErrSignature", name, msg, err)
		}
	}
	other := newCrypt(t, "BBBBB", docKey, docAppID)
	if _, err := other.Open(docSignature, docTime, docNonce, docEncrypt); !errors.Is(err, wechat.ErrSignature) {
		t.Errorf("Open with another token: got %v, want ErrSignature", err)
	}
}

// Digits that move between timestamp and nonce do not change the signature, as
// the comment of Signature warns. This is why replays are recognized by the
// signature alone.
func TestSignatureDoesNotSeparateItsParts(t *testing.T) {
	c := docCrypt(t)
	if got := c.Signature("29", docNonce+"17159433", docEncrypt); got != docSignature {
		t.Errorf("signature with moved digits: got %s, want %s", got, docSignature)
	}
}

// sealed encrypts any plain text. It does not use Crypt, so that both cannot be
// wrong in the same way.
func sealed(t testing.TB, key string, plain []byte) string {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(key + "=")
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(raw)
	if err != nil {
		t.Fatal(err)
	}
	out := make([]byte, len(plain))
	cipher.NewCBCEncrypter(block, raw[:16]).CryptBlocks(out, plain)
	return base64.StdEncoding.EncodeToString(out)
}

// framed returns the plain text of a message: 16 bytes, length, message, appid,
// padding.
func framed(length uint32, rest string, pad int) []byte {
	b := binary.BigEndian.AppendUint32([]byte("0123456789abcdef"), length)
	b = append(b, rest...)
	return append(b, bytes.Repeat([]byte{byte(pad)}, pad)...)
}

func TestEveryPaddingIsAccepted(t *testing.T) {
	c := docCrypt(t)
	seen := make(map[int]bool)
	for n := range 64 {
		msg := strings.Repeat("字", n)[:n] // cut-off characters as well
		// 20 bytes precede the message and 18 follow it.
		pad := 32 - (20+n+18)%32
		seen[pad] = true
		in := sealed(t, docKey, framed(uint32(n), msg+docAppID, pad))
		if got, err := c.Decrypt(in); err != nil || string(got) != msg {
			t.Errorf("padding %d: got %q, %v", pad, got, err)
		}
		if got := c.EncryptWith([]byte(msg), [16]byte([]byte("0123456789abcdef"))); got != in {
			t.Errorf("padding %d: encrypted got %s, want %s", pad, got, in)
		}
		if got, err := c.Decrypt(c.Encrypt([]byte(msg))); err != nil || string(got) != msg {
			t.Errorf("padding %d, encrypted and decrypted: got %q, %v", pad, got, err)
		}
	}
	for pad := 1; pad <= 32; pad++ {
		if !seen[pad] {
			t.Errorf("padding %d: got no message with it, want one", pad)
		}
	}
}

func TestEncryptIsRandomized(t *testing.T) {
	c := docCrypt(t)
	if a, b := c.Encrypt([]byte("same")), c.Encrypt([]byte("same")); a == b {
		t.Error("two encryptions of one message: got equal results, want different ones")
	}
}

func TestHostileCiphertextsAreRejected(t *testing.T) {
	c := docCrypt(t)
	raw, _ := base64.StdEncoding.DecodeString(docEncrypt)
	encode := base64.StdEncoding.EncodeToString
	pad := func(length uint32, rest string) []byte {
		return framed(length, rest, 32-(20+len(rest))%32)
	}
	for name, v := range map[string]struct {
		in   string
		want error
	}{
		"empty":                      {"", wechat.ErrDecrypt},
		"not base64":                 {"%%%%", wechat.ErrDecrypt},
		"base64 of the URL alphabet": {"__-_", wechat.ErrDecrypt},
		"padding of base64 missing":  {strings.TrimRight(docEncrypt, "="), wechat.ErrDecrypt},
		"one byte":                   {encode(raw[:1]), wechat.ErrDecrypt},
		"half a block":               {encode(raw[:24]), wechat.ErrDecrypt},
		"one byte short":             {encode(raw[:len(raw)-1]), wechat.ErrDecrypt},
		// The bytes at the new end are random. Here they happen to be a valid
		// padding.
		"last block missing":        {encode(raw[:len(raw)-16]), wechat.ErrWrongAppID},
		"padding 0":                 {sealed(t, docKey, append(framed(0, docAppID, 25), 0)), wechat.ErrDecrypt},
		"padding 33":                {sealed(t, docKey, append(framed(0, docAppID, 25), 33)), wechat.ErrDecrypt},
		"padding 255":               {sealed(t, docKey, append(framed(0, docAppID, 25), 255)), wechat.ErrDecrypt},
		"nothing but padding":       {sealed(t, docKey, bytes.Repeat([]byte{32}, 32)), wechat.ErrDecrypt},
		"padding over the start":    {sealed(t, docKey, bytes.Repeat([]byte{32}, 16)), wechat.ErrDecrypt},
		"no length":                 {sealed(t, docKey, bytes.Repeat([]byte{16}, 32)), wechat.ErrDecrypt},
		"length over the end":       {sealed(t, docKey, pad(19, docAppID)), wechat.ErrDecrypt},
		"length 2³²-1":              {sealed(t, docKey, pad(1<<32-1, docAppID)), wechat.ErrDecrypt},
		"length 2³¹":                {sealed(t, docKey, pad(1<<31, docAppID)), wechat.ErrDecrypt},
		"length takes the appid in": {sealed(t, docKey, pad(18, docAppID)), wechat.ErrWrongAppID},
		"length too short by one":   {sealed(t, docKey, pad(3, "<a/>"+docAppID)), wechat.ErrWrongAppID},
		"no appid":                  {sealed(t, docKey, pad(4, "<a/>")), wechat.ErrWrongAppID},
		"another appid":             {sealed(t, docKey, pad(4, "<a/>"+"wx134c8103faa5a59f")), wechat.ErrWrongAppID},
		"appid and more":            {sealed(t, docKey, pad(4, "<a/>"+docAppID+"0")), wechat.ErrWrongAppID},
		"appid in capitals": {sealed(t, docKey, pad(4, "<a/>"+strings.ToUpper(docAppID))),
			wechat.ErrWrongAppID},
	} {
		if msg, err := c.Decrypt(v.in); !errors.Is(err, v.want) || msg != nil {
			t.Errorf("%s: got %q, %v, want error", name, msg, err)
		}
	}
}

func TestMessageForAnotherKeyIsRejected(t *testing.T) {
	c := newCrypt(t, docToken, "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG", docAppID)
	if _, err := c.Open(docSignature, docTime, docNonce, docEncrypt); !errors.Is(err, wechat.ErrDecrypt) {
		t.Errorf("Open with another key: got %v, want ErrDecrypt", err)
	}
}

// The 43rd character has two bits that are not part of the key.
func TestSpareBitsOfTheKeyAreIgnored(t *testing.T) {
	for _, last := range "ABCD" {
		c := newCrypt(t, docToken, docKey[:42]+string(last), docAppID)
		if got, err := c.Decrypt(docEncrypt); err != nil || string(got) != docMessage {
			t.Errorf("key that ends in %c: got %v, want no error", last, err)
		}
	}
}

func TestNewCryptRejectsInvalidKeys(t *testing.T) {
	const odd = "p@ssw0rd-p@ssw0rd-p@ssw0rd-p@ssw0rd-p@ssw0r" // 43, of which some are of no base64
	for name, in := range map[string][3]string{
		"no token":         {"", docKey, docAppID},
		"no key":           {docToken, "", docAppID},
		"no appid":         {docToken, docKey, ""},
		"42 characters":    {docToken, docKey[1:], docAppID},
		"44 characters":    {docToken, docKey + "A", docAppID},
		"with its padding": {docToken, docKey + "=", docAppID},
		"other characters": {docToken, odd, docAppID},
	} {
		c, err := wechat.NewCrypt(wechat.NewSecret(in[0]), wechat.NewSecret(in[1]), in[2])
		if err == nil || c != nil {
			t.Errorf("NewCrypt, %s: got no error, want one", name)
			continue
		}
		if in[1] != "" && strings.Contains(err.Error(), in[1]) || strings.Contains(err.Error(), "p@ss") {
			t.Errorf("NewCrypt, %s: got error %q, want one without the key", name, err)
		}
	}
}

// A Crypt is a field of configurations, which get printed.
func TestCryptPrintsNoKey(t *testing.T) {
	const token = "tokenAAAAAtoken"
	// All bytes of this key are 'k' (107, 0x6b), which is easy to find in any
	// form.
	key := strings.TrimSuffix(base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("k"), 32)), "=")
	c := newCrypt(t, token, key, docAppID)
	const keyWord = "1802201963" // four bytes of it, as crypto/aes holds them
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%c",
		"%f", "%b", "%U", "%p", "%z"} {
		for _, v := range []any{c, *c, []*wechat.Crypt{c}, struct{ c *wechat.Crypt }{c},
			struct{ c wechat.Crypt }{*c}} {
			out := fmt.Sprintf(verb, v)
			for _, part := range []string{token, key, "kkkk", "107 107", "107, 107", "0x6b, 0x6b",
				"6b6b6b", "6B6B6B", "6b 6b", "6B 6B", keyWord} {
				if strings.Contains(out, part) {
					t.Errorf("%s of %T: got %q in the output, want none of the key", verb, v, part)
				}
			}
		}
	}
}

func FuzzDecrypt(f *testing.F) {
	c := docCrypt(f)
	f.Add(docEncrypt)
	f.Add(docReplyEncrypt)
	f.Add("")
	f.Add(docEncrypt[:64])
	f.Add(sealed(f, docKey, bytes.Repeat([]byte{32}, 32)))
	f.Add(sealed(f, docKey, framed(1<<32-1, docAppID, 26)))
	f.Fuzz(func(t *testing.T, in string) {
		msg, err := c.Decrypt(in)
		if err != nil {
			if msg != nil || !errors.Is(err, wechat.ErrDecrypt) && !errors.Is(err, wechat.ErrWrongAppID) {
				t.Errorf("Decrypt(%q): got %q, %v", in, msg, err)
			}
			return
		}
		// What is accepted must survive encryption and decryption.
		if again, err := c.Decrypt(c.Encrypt(msg)); err != nil || !bytes.Equal(again, msg) {
			t.Errorf("encrypted and decrypted: got %q, %v, want %q", again, err, msg)
		}
	})
}
