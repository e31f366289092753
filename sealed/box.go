package sealed

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"fmt"
)

const keySize = 32 // bytes; AES-256

// What is encrypted. It is authenticated too, so that one cannot be taken for the other.
const (
	forValue  = "es sealed value"
	forKey    = "es sealed key"
	forMaster = "es sealed master"
)

var encoding = base64.RawStdEncoding

// lock encrypts with a random nonce and returns text.
func lock(key []byte, plain []byte, names ...string) (string, error) {
	aead, err := newAEAD(key)
	if err != nil {
		return "", err
	}
	nonce := make([]byte, aead.NonceSize(), aead.NonceSize()+len(plain)+aead.Overhead())
	_, _ = rand.Read(nonce) // never returns an error
	return encoding.EncodeToString(aead.Seal(nonce, nonce, plain, associated(names))), nil
}

// unlock is the inverse of lock. It fails if anything differs.
func unlock(key []byte, text string, names ...string) ([]byte, error) {
	aead, err := newAEAD(key)
	if err != nil {
		return nil, err
	}
	box, err := encoding.DecodeString(text)
	if err != nil || encoding.EncodeToString(box) != text || len(box) < aead.NonceSize() { // there is one text of a box, without line breaks
		return nil, ErrDamaged
	}
	n := aead.NonceSize()
	plain, err := aead.Open(nil, box[:n], box[n:], associated(names))
	if err != nil {
		return nil, ErrDamaged
	}
	return plain, nil
}

func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("key of %d bytes: %w", len(key), err)
	}
	return cipher.NewGCM(block)
}

// associated joins names so that no other names give the same bytes.
func associated(names []string) (data []byte) {
	for _, name := range names {
		data = binary.BigEndian.AppendUint64(data, uint64(len(name)))
		data = append(data, name...)
	}
	return data
}
