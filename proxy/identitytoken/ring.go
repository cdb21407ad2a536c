package identitytoken

import (
	"bytes"
	"slices"
	"sync"
	"time"
)

// maxSkew is how far verifiers' clocks may be behind ours.
const maxSkew = time.Minute

// ring holds the keys: those of the past, whose tokens are still around, the one
// that signs, and those to come. A key signs only after it has been in the key set
// as long as upstreams may keep one, and stays there until its last token has
// expired. Nothing runs in the background: whoever asks moves the ring on.
type ring struct {
	ahead    time.Duration // from being published to signing
	keep     time.Duration // from the last signature to leaving
	rotate   time.Duration // from signing to handing over; 0: keys come from outside
	generate func() (*key, error)

	mu      sync.Mutex
	keys    []member
	wanted  []string // ids in the order of preference
	current string   // id of the key that signs
	since   time.Time
}

type member struct {
	*key
	published time.Time // zero: at the beginning, before anybody fetched anything
	until     time.Time // its last token may be around so long; zero: it never signed, or signs
}

// newRing makes a ring that goes on from old, which may be nil and is left alone.
func newRing(c Config, old *ring) *ring {
	r := &ring{ahead: c.PublishAhead, keep: c.Lifetime + maxSkew}
	if c.KeyFile == "" {
		r.rotate, r.generate = c.RotateInterval, func() (*key, error) { return generate(c.Algorithm) }
	}
	if old != nil {
		old.mu.Lock()
		defer old.mu.Unlock()
		r.keep = max(r.keep, old.keep)
		r.keys, r.wanted, r.current, r.since = slices.Clone(old.keys), slices.Clone(old.wanted), old.current, old.since
	}
	return r
}

// want makes keys those to sign with, in the order of preference.
func (r *ring) want(keys []*key, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	published := now
	if r.current == "" {
		published = time.Time{}
	}
	r.wanted = r.wanted[:0:0]
	for _, k := range keys {
		if r.member(k.id) == nil {
			r.keys = append(r.keys, member{key: k, published: published})
		}
		r.wanted = append(r.wanted, k.id)
	}
}

func (r *ring) member(id string) *member {
	for i := range r.keys {
		if r.keys[i].id == id {
			return &r.keys[i]
		}
	}
	return nil
}

// signer returns the key to sign with now.
func (r *ring) signer(now time.Time) (*key, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.advance(now); err != nil {
		return nil, err
	}
	return r.member(r.current).key, nil
}

// keySet returns the JWK set (RFC 7517 section 5) as it is now.
func (r *ring) keySet(now time.Time) ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.advance(now); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.WriteString(`{"keys":[`)
	for i := range r.keys {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(r.keys[i].jwk)
	}
	b.WriteString("]}\n")
	return b.Bytes(), nil
}

// advance does what time has brought.
func (r *ring) advance(now time.Time) error {
	if r.rotate > 0 {
		if err := r.replenish(now); err != nil {
			return err
		}
	}
	if next := r.choose(now); next != r.current {
		if old := r.member(r.current); old != nil {
			old.until = now.Add(r.keep)
		}
		r.member(next).until = time.Time{}
		r.current, r.since = next, now
	}
	r.keys = slices.DeleteFunc(r.keys, func(m member) bool {
		return m.id != r.current && !slices.Contains(r.wanted, m.id) && !now.Before(m.until)
	})
	return nil
}

// choose returns the first wanted key that upstreams know. Until there is one the
// old one goes on.
func (r *ring) choose(now time.Time) string {
	for _, id := range r.wanted {
		if !now.Before(r.member(id).published.Add(r.ahead)) {
			return id
		}
	}
	if r.current == "" {
		return r.wanted[0]
	}
	return r.current
}

// replenish has the first wanted key hand over when it has signed long enough, and
// keeps one to come beside it.
func (r *ring) replenish(now time.Time) error {
	due := len(r.wanted) > 1 && r.current == r.wanted[0] && !now.Before(r.since.Add(r.rotate))
	if due {
		r.wanted = r.wanted[1:]
	}
	for len(r.wanted) < 2 {
		k, err := r.generate()
		if err != nil {
			return err
		}
		published := now
		if r.current == "" {
			published = time.Time{}
		}
		r.keys = append(r.keys, member{key: k, published: published})
		r.wanted = append(r.wanted, k.id)
	}
	return nil
}
