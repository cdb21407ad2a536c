package session

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"

	"golang.org/x/crypto/chacha20poly1305"
)

const (
	keySize     = 32 // bytes of a key file's content
	keyIDSize   = 4
	sealVersion = 1
)

// Keys seals with its first key and opens with each of them. It is safe for
// concurrent use; Reload exchanges the keys.
//
// The cipher is XChaCha20-Poly1305: nonces are random, sessions are sealed again
// and again on all replicas, and 96 bits of a nonce would not be enough for that.
type Keys struct {
	files   []string // empty: one key, generated
	current atomic.Pointer[[]sealKey]
}

type sealKey struct {
	id   [keyIDSize]byte
	aead cipher.AEAD
	mac  []byte // for tokens that are compared and not opened
}

// NewKeys reads keys from files, or generates one if there are none: what it seals
// ends with the process, and no other can read it.
func NewKeys(files []string) (*Keys, error) {
	k := &Keys{files: files}
	if len(files) > 0 {
		return k, k.Reload()
	}
	var secret [keySize]byte
	_, _ = rand.Read(secret[:]) // never fails
	key, err := newSealKey(secret[:])
	if err != nil {
		return nil, err
	}
	k.current.Store(&[]sealKey{key})
	return k, nil
}

// Files returns the files that Reload reads.
func (k *Keys) Files() []string { return k.files }

// Reload reads the files again; on error the keys stay.
func (k *Keys) Reload() error {
	if len(k.files) == 0 {
		return nil
	}
	keys := make([]sealKey, 0, len(k.files))
	for _, name := range k.files {
		data, err := os.ReadFile(name) //nolint:gosec // the operator names the file
		if err != nil {
			return fmt.Errorf("read session key: %w", err)
		}
		secret, err := parseKey(strings.TrimSpace(string(data)))
		if err != nil {
			return fmt.Errorf("session key of %s: %w", name, err)
		}
		key, err := newSealKey(secret)
		if err != nil {
			return err
		}
		for _, other := range keys {
			if other.id == key.id {
				return fmt.Errorf("session key of %s: it is the same as another one", name)
			}
		}
		keys = append(keys, key)
	}
	k.current.Store(&keys)
	return nil
}

// Adopt takes over the generated key of prev, if both have one: a reload of the
// configuration ends nobody's session.
func (k *Keys) Adopt(prev *Keys) {
	if len(k.files) == 0 && len(prev.files) == 0 {
		k.current.Store(prev.current.Load())
	}
}

// parseKey takes 32 bytes as base64 or hexadecimal digits. Text that somebody made
// up has too little in it, so nothing else is a key.
func parseKey(text string) ([]byte, error) {
	text = strings.TrimRight(text, "=")
	for _, decode := range []func(string) ([]byte, error){
		hex.DecodeString, base64.RawStdEncoding.DecodeString, base64.RawURLEncoding.DecodeString,
	} {
		if secret, err := decode(text); err == nil && len(secret) == keySize {
			return secret, nil
		}
	}
	return nil, errors.New("it is not 32 bytes in base64 or hexadecimal digits; make one with: openssl rand -base64 32")
}

func newSealKey(secret []byte) (k sealKey, err error) {
	id, err := hkdf.Key(sha256.New, secret, nil, "sallyport session key id", keyIDSize)
	if err != nil {
		return k, err
	}
	k.id = [keyIDSize]byte(id)
	if k.mac, err = hkdf.Key(sha256.New, secret, nil, "sallyport session mac", sha256.Size); err != nil {
		return k, err
	}
	seal, err := hkdf.Key(sha256.New, secret, nil, "sallyport session seal", chacha20poly1305.KeySize)
	if err != nil {
		return k, err
	}
	k.aead, err = chacha20poly1305.NewX(seal)
	return k, err
}

// Seal encrypts and authenticates text for one purpose: what is sealed for one is
// not opened for another.
func (k *Keys) Seal(purpose string, text []byte) []byte {
	key := (*k.current.Load())[0]
	head := 1 + keyIDSize
	nonce := head + chacha20poly1305.NonceSizeX
	out := make([]byte, nonce, nonce+len(text)+chacha20poly1305.Overhead)
	out[0] = sealVersion
	copy(out[1:], key.id[:])
	_, _ = rand.Read(out[head:nonce])                                                 // never fails
	return key.aead.Seal(out, out[head:nonce], text, additional(purpose, out[:head])) //nolint:gosec // a random nonce
}

var errSealed = errors.New("it was not sealed here, or was changed since")

// Open is the inverse of Seal.
func (k *Keys) Open(purpose string, sealed []byte) ([]byte, error) {
	head := 1 + keyIDSize
	nonce := head + chacha20poly1305.NonceSizeX
	if len(sealed) < nonce+chacha20poly1305.Overhead || sealed[0] != sealVersion {
		return nil, errSealed
	}
	for _, key := range *k.current.Load() {
		if key.id != [keyIDSize]byte(sealed[1:head]) {
			continue
		}
		text, err := key.aead.Open(nil, sealed[head:nonce], sealed[nonce:], additional(purpose, sealed[:head]))
		if err != nil {
			return nil, errSealed
		}
		return text, nil
	}
	return nil, fmt.Errorf("%w: its key is not one of ours", errSealed)
}

func additional(purpose string, head []byte) []byte {
	return append([]byte(purpose+"\x00"), head...)
}
