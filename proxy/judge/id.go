package judge

import (
	"math/rand/v2"
	"strings"
)

// requestID returns the id that a trusted peer gave, or a new one.
func requestID(a *Arrival, trusted bool) string {
	if trusted {
		if id := a.header("x-request-id"); validID(id) {
			return id
		}
	}
	return NewID()
}

// validID keeps an id harmless in headers, logs and shells.
func validID(id string) bool {
	if id == "" || len(id) > 128 {
		return false
	}
	for i := range len(id) {
		if c := id[i]; !isAlphanumeric(c) && strings.IndexByte("-_.:/+=", c) < 0 {
			return false
		}
	}
	return true
}

func isAlphanumeric(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// NewID returns 128 random bits. They identify a request and guard nothing.
func NewID() string {
	const digits = "0123456789abcdef"
	var out [32]byte
	hi, lo := rand.Uint64(), rand.Uint64() //nolint:gosec // not a secret
	for i := range 16 {
		out[i], out[16+i] = digits[hi>>(4*i)&15], digits[lo>>(4*i)&15]
	}
	return string(out[:])
}
