package wechat

// EncryptWith is Encrypt with the 16 random bytes given.
func (c *Crypt) EncryptWith(msg []byte, random [16]byte) string { return c.encrypt(msg, random) }
