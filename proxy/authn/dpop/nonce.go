package dpop

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"time"
)

// nonces makes the nonces of this process (RFC 9449 section 8). Nothing is kept of
// them: a nonce is the MAC of the period in which it was handed out, and it is
// good until the next period ends.
type nonces struct {
	root   [sha256.Size]byte
	period time.Duration
}

func newNonces(period time.Duration) *nonces {
	n := &nonces{period: period}
	_, _ = rand.Read(n.root[:]) // never fails
	return n
}

func (n *nonces) at(t time.Time) string {
	mac := hmac.New(sha256.New, n.root[:])
	var period [8]byte
	binary.BigEndian.PutUint64(period[:], uint64(t.UnixNano()/int64(n.period))) //nolint:gosec // an index
	mac.Write(period[:])
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:16])
}

// good reports whether nonce is one of this period or the one before.
func (n *nonces) good(nonce string, now time.Time) bool {
	current, previous := n.at(now), n.at(now.Add(-n.period))
	return subtle.ConstantTimeCompare([]byte(nonce), []byte(current))|
		subtle.ConstantTimeCompare([]byte(nonce), []byte(previous)) == 1
}
