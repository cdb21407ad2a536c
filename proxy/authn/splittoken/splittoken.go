// Package splittoken finds the header and the payload of a JWT of which the client
// carries the signature alone (Curity's split token pattern). The authorization server,
// or a listener of its events, puts "header.payload" under the SHA-256 hash of the
// signature into a store that only the gateway reads: a web server or Redis. The
// client's token says nothing by itself, what is stored is nothing without it, and
// nobody is asked about tokens.
//
// It owns the question, its bounds and the form of a record. It verifies nothing: what
// is joined of both is a JWT like any other and is judged by proxy/authn/jwt.
package splittoken

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// ErrUnknown says that the store has nothing under the hash of that signature.
var ErrUnknown = errors.New("no header and payload are stored for the signature")

// maxRecord bounds a record in bytes, as tokens are.
const maxRecord = 16 << 10

// source is one kind of store.
type source interface {
	// get returns the record of a hash, or ErrUnknown.
	get(ctx context.Context, hash string) (string, error)
	files() []string
	reload() error
	close()
}

// Finder asks the store. It is safe for concurrent use.
type Finder struct {
	config Config
	source source
	slots  chan struct{}
}

// New reads the files of c and connects to nothing.
func New(c Config) (*Finder, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c = c.Filled()
	f := &Finder{config: c, slots: make(chan struct{}, c.MaxConcurrent)}
	var err error
	if c.Redis != nil {
		f.source, err = newRedis(*c.Redis, c.Timeout)
	} else {
		f.source, err = newWeb(c)
	}
	return f, err
}

// Hash returns what a signature, in base64url as it stands in the JWT, is stored
// under.
func Hash(signature string) string {
	sum := sha256.Sum256([]byte(signature))
	return hex.EncodeToString(sum[:])
}

// Join returns the JWT of a signature, or ErrUnknown. Any other error means that the
// store cannot tell now. The answer is as good as the store: nothing of it is verified.
func (f *Finder) Join(ctx context.Context, signature string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, f.config.Timeout)
	defer cancel()
	select {
	case f.slots <- struct{}{}:
		defer func() { <-f.slots }()
	case <-ctx.Done():
		return "", fmt.Errorf("%d look-ups are under way: %w", f.config.MaxConcurrent, context.Cause(ctx))
	}
	record, err := f.source.get(ctx, Hash(signature))
	if err != nil {
		return "", err
	}
	record = strings.TrimRight(record, "\r\n")
	header, payload, two := strings.Cut(record, ".")
	if !two || header == "" || payload == "" || strings.Contains(payload, ".") || len(record) > maxRecord {
		return "", errors.New("what is stored is not the header and the payload of a JWT, with a dot between them")
	}
	return record + "." + signature, nil
}

// Files returns the files that Reload reads.
func (f *Finder) Files() []string { return f.source.files() }

// Reload reads the files again. What could not be read stays as it was.
func (f *Finder) Reload() error { return f.source.reload() }

// Close closes the connections once requests that began before a reload need them no
// more.
func (f *Finder) Close() { f.source.close() }
