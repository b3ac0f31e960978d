package wechat

// EncryptWith is Encrypt with the 16 bytes given that are random otherwise.
func (c *Crypt) EncryptWith(msg []byte, random [16]byte) string { return c.encrypt(msg, random) }
