package mtls

import (
	"crypto/x509"
	"hash/maphash"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
)

const recentSlots = 1024

// recent remembers what was made of certificates: the requests of a connection
// share one parsed certificate, so its address finds the identity without
// looking into it. A slot has room for one; the next certificate that falls into
// it takes its place.
type recent struct {
	seed  maphash.Seed
	slots [recentSlots]atomic.Pointer[known]
}

type known struct {
	leaf     *x509.Certificate
	identity *authz.Identity
	until    time.Time
}

func newRecent() *recent { return &recent{seed: maphash.MakeSeed()} }

func (r *recent) slot(leaf *x509.Certificate) *atomic.Pointer[known] {
	return &r.slots[maphash.Comparable(r.seed, leaf)%recentSlots]
}

func (r *recent) get(leaf *x509.Certificate, now time.Time) *authz.Identity {
	k := r.slot(leaf).Load()
	if k == nil || k.leaf != leaf || now.After(k.until) {
		return nil
	}
	return k.identity
}

func (r *recent) put(leaf *x509.Certificate, id *authz.Identity, until time.Time) {
	r.slot(leaf).Store(&known{leaf: leaf, identity: id, until: until})
}
