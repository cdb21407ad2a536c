package basic

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
)

// recent remembers which passwords were verified lately. It keeps no password: what
// is kept is an HMAC with a key of this process, of no use in a core file without
// that key and a guess of the password. The hash of the user's line is part of it,
// so that a changed line ends what was verified with the old one.
type recent struct {
	key      [sha256.Size]byte
	ttl      time.Duration
	verified *lru.Cache[[sha256.Size]byte, time.Time] // until when
}

func newRecent(size int, ttl time.Duration) (*recent, error) {
	verified, err := lru.New[[sha256.Size]byte, time.Time](size)
	if err != nil {
		return nil, err
	}
	r := &recent{ttl: ttl, verified: verified}
	_, _ = rand.Read(r.key[:]) // never fails
	return r, nil
}

// digest is of fixed length in u's hash, so that no two pairs have one text.
func (r *recent) digest(u *user, password string) (sum [sha256.Size]byte) {
	m := hmac.New(sha256.New, r.key[:])
	m.Write(u.hash)
	m.Write([]byte(u.identity.Subject))
	m.Write([]byte{0})
	m.Write([]byte(password))
	m.Sum(sum[:0])
	return sum
}

func (r *recent) has(u *user, password string, now time.Time) bool {
	until, ok := r.verified.Get(r.digest(u, password))
	return ok && now.Before(until)
}

func (r *recent) add(u *user, password string, now time.Time) {
	r.verified.Add(r.digest(u, password), now.Add(r.ttl))
}
