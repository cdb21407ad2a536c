// Package work makes what is asked of every system: a signing key, tokens of
// many subjects, the requests that carry them, and the cases that a system must
// answer correctly before its speed means anything. It sends nothing.
package work

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// What tokens say. Every system checks all of it.
const (
	Issuer   = "https://issuer.bench.example"
	Audience = "orders"
)

// Work is one run's tokens and files.
type Work struct {
	Key    *Key
	Tokens []Token

	// Files of the run.
	JWKS      string // the public key as a JWK set (RFC 7517)
	PublicKey string // the same as PEM
	Requests  string // one "path<TAB>token" a line, for the load generator
}

// Token is one subject's token and what it asks for.
type Token struct {
	Subject, Role, Path, Text string
}

// New makes a key and count tokens that are valid from now for a day, and writes
// the files into dir. Readers and writers alternate; both may read.
func New(dir string, count int, now time.Time) (*Work, error) {
	key, err := NewKey()
	if err != nil {
		return nil, err
	}
	w := &Work{
		Key: key, JWKS: filepath.Join(dir, "jwks.json"), PublicKey: filepath.Join(dir, "public.pem"),
		Requests: filepath.Join(dir, "requests.txt"),
	}
	for i := range count {
		t := Token{Subject: fmt.Sprintf("user-%05d", i), Role: "reader", Path: fmt.Sprintf("/v1/orders/%d", i%100)}
		if i%2 == 1 {
			t.Role = "writer"
		}
		if t.Text, err = key.Sign(claims(t.Subject, t.Role, now, 24*time.Hour)); err != nil {
			return nil, err
		}
		w.Tokens = append(w.Tokens, t)
	}
	return w, w.write()
}

func claims(subject, role string, now time.Time, life time.Duration) map[string]any {
	return map[string]any{
		"iss": Issuer, "aud": Audience, "sub": subject, "roles": []string{role},
		"iat": now.Unix(), "exp": now.Add(life).Unix(),
	}
}

func (w *Work) write() error {
	keys, err := json.Marshal(w.Key.Set())
	if err != nil {
		return fmt.Errorf("encode the key set: %w", err)
	}
	der, err := x509.MarshalPKIXPublicKey(w.Key.private.Public())
	if err != nil {
		return fmt.Errorf("encode the public key: %w", err)
	}
	var requests bytes.Buffer
	for _, t := range w.Tokens {
		fmt.Fprintf(&requests, "%s\t%s\n", t.Path, t.Text)
	}
	for name, data := range map[string][]byte{
		w.JWKS: keys, w.PublicKey: pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), w.Requests: requests.Bytes(),
	} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			return fmt.Errorf("write the work: %w", err)
		}
	}
	return nil
}

// Case is one request whose answer shows whether a system does the work.
type Case struct {
	Name    string
	Method  string
	Path    string
	Token   string // "": no Authorization header
	Status  int    // that of a system that does all of the work
	Subject string // X-User that must reach the upstream; "": not looked at
}

// Names of the cases.
const (
	Allowed   = "allowed"
	Subject   = "subject"
	Forbidden = "forbidden"
	NoToken   = "no token"
	Expired   = "expired"
	Forged    = "forged"
)

// Cases returns the cases. An upstream answers 200 to everything, so that any
// other status is the system's own.
func (w *Work) Cases(now time.Time) ([]Case, error) {
	t := w.Tokens[0]
	expired, err := w.Key.Sign(claims(t.Subject, t.Role, now.Add(-2*time.Hour), time.Hour))
	if err != nil {
		return nil, err
	}
	other, err := NewKey()
	if err != nil {
		return nil, err
	}
	other.id = w.Key.id
	forged, err := other.Sign(claims(t.Subject, t.Role, now, time.Hour))
	if err != nil {
		return nil, err
	}
	return []Case{
		{Name: Allowed, Method: "GET", Path: t.Path, Token: t.Text, Status: 200},
		{Name: Subject, Method: "GET", Path: t.Path, Token: t.Text, Status: 200, Subject: t.Subject},
		{Name: Forbidden, Method: "POST", Path: t.Path, Token: t.Text, Status: 403},
		{Name: NoToken, Method: "GET", Path: t.Path, Status: 401},
		{Name: Expired, Method: "GET", Path: t.Path, Token: expired, Status: 401},
		{Name: Forged, Method: "GET", Path: t.Path, Token: forged, Status: 401},
	}, nil
}
