package work

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"
)

// Crowd is many tokens of as many subjects, as many as a large service sees in an
// hour. They lie in one piece of memory: a million strings would keep the
// harness's garbage collector busy beside what is measured.
type Crowd struct {
	Key  *Key
	JWKS string // file with the public key as a JWK set

	all    []byte
	length int // of each token
}

// NewCrowd signs count tokens with EdDSA, each of its own subject, all readers,
// valid from now for a day, on all cores. The key set goes to dir.
func NewCrowd(dir string, count int, now time.Time) (*Crowd, error) {
	if count < 1 {
		return nil, errors.New("a crowd has one token at least")
	}
	key, err := NewFastKey()
	if err != nil {
		return nil, err
	}
	c := &Crowd{Key: key, JWKS: filepath.Join(dir, "crowd.json")}
	keys, err := json.Marshal(key.Set())
	if err != nil {
		return nil, fmt.Errorf("encode the key set: %w", err)
	}
	if err := os.WriteFile(c.JWKS, keys, 0o600); err != nil {
		return nil, fmt.Errorf("write the key set: %w", err)
	}
	first, err := c.sign(0, now)
	if err != nil {
		return nil, err
	}
	c.length, c.all = len(first), make([]byte, count*len(first))
	workers := runtime.NumCPU()
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() { errs[w] = c.fill(w, workers, now) })
	}
	wg.Wait()
	return c, errors.Join(errs...)
}

// fill signs every step-th token beginning at first.
func (c *Crowd) fill(first, step int, now time.Time) error {
	for i := first; i < c.Len(); i += step {
		token, err := c.sign(i, now)
		if err != nil {
			return err
		}
		if copy(c.all[i*c.length:(i+1)*c.length], token) != len(token) {
			return fmt.Errorf("token %d has %d bytes, the first has %d", i, len(token), c.length)
		}
	}
	return nil
}

func (c *Crowd) sign(i int, now time.Time) (string, error) {
	return c.Key.Sign(claims(fmt.Sprintf("user-%07d", i), "reader", now, 24*time.Hour))
}

// Len is the number of tokens.
func (c *Crowd) Len() int { return len(c.all) / c.length }

// Token is the token of one subject. It is not to be changed.
func (c *Crowd) Token(i int) []byte { return c.all[i*c.length : (i+1)*c.length] }
