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

// What can be wrong with an encrypted push. The texts are for operators; none
// quotes what was received.
var (
	ErrSignature  = errors.New("msg_signature does not fit: another message token, or not from WeChat")
	ErrDecrypt    = errors.New("cannot be decrypted: another EncodingAESKey, or damaged on the way")
	ErrWrongAppID = errors.New("was encrypted for another appid")
)

// Crypt signs, encrypts and decrypts pushes of one component
// (消息加解密, doc/oplatform/Third-party_Platforms/2.0/api/Before_Develop/message_push).
// It is safe for concurrent use.
type Crypt struct {
	token Secret
	appid string
	// The key lies inside functions, because fmt prints those as addresses. A pointer is not
	// enough: for a verb that does not fit, such as %s, fmt prints what it points to.
	encrypter, decrypter func() cipher.BlockMode
}

// The padding goes to multiples of 32, not of AES's 16: values 1 to 32 are legal.
const padBlock = 32

// NewCrypt takes the message token, the EncodingAESKey of 43 characters and the
// appid that stands at the end of each message: always the component's, also in
// messages of its authorizers. Neither may be empty: with an empty token anybody could
// sign, and an empty appid would tell nothing apart. The errors tell nothing of the key but
// its length.
func NewCrypt(token, encodingAESKey Secret, appid string) (*Crypt, error) {
	switch {
	case token.IsEmpty():
		return nil, errors.New("the message token is empty")
	case appid == "":
		return nil, errors.New("the component's appid is empty")
	}
	// The 43rd character carries two bits that nobody uses and that WeChat's own
	// console sets at random: the lenient decoder is the right one.
	key, err := base64.StdEncoding.DecodeString(encodingAESKey.Reveal() + "=")
	if err != nil || len(key) != 32 {
		return nil, fmt.Errorf("EncodingAESKey must be 43 characters of A-Z, a-z, 0-9: it has %d, or others among them", len(encodingAESKey.Reveal()))
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

// Signature computes msg_signature: the hexadecimal SHA-1 of the message token,
// timestamp, nonce and Encrypt, sorted as strings and joined. With encrypted ""
// it is the older `signature`, which does not cover the body.
//
// As nothing separates the parts, a digit can move from one into another under the same
// signature: whoever wants to know a push again must go by the signature alone.
func (c *Crypt) Signature(timestamp, nonce, encrypted string) string {
	parts := []string{c.token.Reveal(), timestamp, nonce}
	if encrypted != "" {
		parts = append(parts, encrypted)
	}
	slices.Sort(parts)
	h := sha1.New()
	for _, p := range parts {
		h.Write([]byte(p))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Open verifies msg_signature and decrypts. The errors are [ErrSignature],
// [ErrDecrypt] and [ErrWrongAppID].
func (c *Crypt) Open(msgSignature, timestamp, nonce, encrypted string) ([]byte, error) {
	want := c.Signature(timestamp, nonce, encrypted)
	if encrypted == "" || subtle.ConstantTimeCompare([]byte(want), []byte(msgSignature)) != 1 {
		return nil, ErrSignature
	}
	return c.Decrypt(encrypted)
}

// Decrypt gives the message inside. The caller has verified the signature: without
// that, differences between the errors would tell an attacker about the padding.
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
	// 16 random bytes, length of the message (big endian), message, appid
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

// Encrypt is the way back: what WeChat does to a push, and what a passive reply needs.
func (c *Crypt) Encrypt(msg []byte) string {
	var random [16]byte
	rand.Read(random[:])
	return c.encrypt(msg, random)
}

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
