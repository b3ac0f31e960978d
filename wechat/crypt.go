package wechat

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
)

// Errors of [Crypt]. They are written for operators, and none quotes what was
// received.
var (
	// ErrSignature: msg_signature does not match the message token.
	ErrSignature = errors.New("wrong msg_signature: another message token, or not sent by WeChat")

	// ErrDecrypt: the message cannot be decrypted with the key.
	ErrDecrypt = errors.New("undecryptable message: another EncodingAESKey, or damaged in transit")

	// ErrWrongAppID: the message is intact, but not for this component.
	ErrWrongAppID = errors.New("message encrypted for another appid")
)

// Crypt signs, encrypts and decrypts the pushes of one component, or of one own
// account (消息加解密,
// doc/oplatform/Third-party_Platforms/2.0/api/Before_Develop/message_push). It
// is safe for concurrent use. Printing it does not print its key.
type Crypt struct {
	token Secret
	appid string
	// The key is captured by functions, because fmt prints those as addresses.
	// A pointer is not enough: for a verb that does not fit, such as %s, fmt
	// prints what it points to.
	encrypter, decrypter func() cipher.BlockMode
}

// padBlock is the multiple to which messages are padded, in bytes. WeChat uses
// 32 rather than the 16 of AES, so padding values from 1 to 32 are valid.
const padBlock = 32

// NewCrypt returns a Crypt for the message token, the EncodingAESKey of 43
// characters, and the appid at the end of each message. That appid is always
// the component's, in messages of its authorizers too. An own account has its
// own.
//
// An empty token is an error, because any sender could sign with it. So is an
// empty appid, because it would not tell components apart. Errors reveal
// nothing of the key but its length.
func NewCrypt(token, encodingAESKey Secret, appid string) (*Crypt, error) {
	switch {
	case token.IsEmpty():
		return nil, errors.New("empty message token")
	case appid == "":
		return nil, errors.New("empty appid of the component")
	}
	// The last two bits of the 43rd character are unused. WeChat's console sets
	// them at random, so the strict decoder would reject most real keys.
	key, err := base64.StdEncoding.DecodeString(encodingAESKey.Reveal() + "=")
	if err != nil || len(key) != 32 {
		return nil, fmt.Errorf(
			"invalid EncodingAESKey: want 43 characters of A-Z, a-z, 0-9, got %d or others",
			len(encodingAESKey.Reveal()))
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	iv := key[:aes.BlockSize]
	return &Crypt{
		token:     token,
		appid:     appid,
		encrypter: func() cipher.BlockMode { return cipher.NewCBCEncrypter(block, iv) },
		decrypter: func() cipher.BlockMode { return cipher.NewCBCDecrypter(block, iv) },
	}, nil
}

// Signature returns msg_signature, the [Signature] of timestamp, nonce and
// Encrypt. With encrypted "" it returns the older `signature`, which does not
// cover the body.
func (c *Crypt) Signature(timestamp, nonce, encrypted string) string {
	return Signature(c.token, timestamp, nonce, encrypted)
}

// Signature returns the hexadecimal SHA-1 of the message token and of all parts
// that are not empty, sorted as strings and joined. WeChat signs the timestamp,
// the nonce and, in msg_signature, Encrypt.
//
// Nothing separates the parts, so a digit can move from one to another without
// changing the signature. To recognize a replayed push, compare the signature
// alone.
func Signature(token Secret, parts ...string) string {
	signed := []string{token.Reveal()}
	for _, p := range parts {
		if p != "" {
			signed = append(signed, p)
		}
	}
	slices.Sort(signed)
	h := sha1.New()
	for _, p := range signed {
		h.Write([]byte(p))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Open verifies msg_signature and returns the decrypted message. Its errors are
// [ErrSignature], [ErrDecrypt] and [ErrWrongAppID].
func (c *Crypt) Open(msgSignature, timestamp, nonce, encrypted string) ([]byte, error) {
	want := c.Signature(timestamp, nonce, encrypted)
	if encrypted == "" || subtle.ConstantTimeCompare([]byte(want), []byte(msgSignature)) != 1 {
		return nil, ErrSignature
	}
	return c.Decrypt(encrypted)
}

// Decrypt returns the message inside encrypted. Its errors are [ErrDecrypt] and
// [ErrWrongAppID]. Verify the signature first: otherwise the difference between
// the errors is a padding oracle.
func (c *Crypt) Decrypt(encrypted string) ([]byte, error) {
	buf, err := base64.StdEncoding.DecodeString(encrypted)
	if err != nil || len(buf) == 0 || len(buf)%aes.BlockSize != 0 {
		return nil, ErrDecrypt
	}
	c.decrypter().CryptBlocks(buf, buf)
	pad := int(buf[len(buf)-1])
	if pad < 1 || pad > padBlock || pad > len(buf) {
		return nil, ErrDecrypt
	}
	buf = buf[:len(buf)-pad]
	// The plain text is 16 random bytes, the length of the message (big
	// endian), the message, and the appid.
	if len(buf) < 20 {
		return nil, ErrDecrypt
	}
	n := uint64(binary.BigEndian.Uint32(buf[16:20]))
	if n > uint64(len(buf)-20) {
		return nil, ErrDecrypt
	}
	msg, appid := buf[20:20+n], buf[20+n:]
	if !bytes.Equal(appid, []byte(c.appid)) {
		return nil, ErrWrongAppID
	}
	return msg, nil
}

// Encrypt encrypts msg in the way of WeChat's pushes. Passive replies have the
// same form.
func (c *Crypt) Encrypt(msg []byte) string {
	var random [16]byte
	rand.Read(random[:])
	return c.encrypt(msg, random)
}

// encrypt is Encrypt with the random bytes given, for tests.
func (c *Crypt) encrypt(msg []byte, random [16]byte) string {
	buf := append([]byte(nil), random[:]...)
	buf = binary.BigEndian.AppendUint32(buf, uint32(len(msg)))
	buf = append(buf, msg...)
	buf = append(buf, c.appid...)
	pad := padBlock - len(buf)%padBlock
	buf = append(buf, bytes.Repeat([]byte{byte(pad)}, pad)...)
	c.encrypter().CryptBlocks(buf, buf)
	return base64.StdEncoding.EncodeToString(buf)
}
