package josetest

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
)

// Issuer is a real HTTP server with metadata and a key set that tests replace.
type Issuer struct {
	*httptest.Server
	Fetches atomic.Int64 // of the key set
	keys    atomic.Value // http.HandlerFunc
}

// NewIssuer starts an issuer that publishes the keys of signers at /keys.
func NewIssuer(t testing.TB, signers ...*Signer) *Issuer {
	t.Helper()
	is := &Issuer{}
	is.Publish(t, signers...)
	mux := http.NewServeMux()
	mux.HandleFunc("/keys", func(w http.ResponseWriter, r *http.Request) {
		is.Fetches.Add(1)
		is.keys.Load().(http.HandlerFunc)(w, r)
	})
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, is.URL, is.URL+"/keys")
	})
	is.Server = httptest.NewServer(mux)
	t.Cleanup(is.Close)
	return is
}

// Publish replaces the key set.
func (is *Issuer) Publish(t testing.TB, signers ...*Signer) {
	t.Helper()
	body := JWKS(t, signers...)
	is.Answer(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) })
}

// Answer replaces the key set's answer.
func (is *Issuer) Answer(f http.HandlerFunc) { is.keys.Store(f) }
