package certs_test

import (
	"encoding/json"
	"testing"

	"github.com/sallyport/sallyport/proxy/certs"
	"github.com/sallyport/sallyport/proxy/certs/certstest"
)

// TestTrustBundle: the authorities of a listener can be a SPIFFE trust bundle, which
// rotates like a PEM file.
func TestTrustBundle(t *testing.T) {
	s := newSite(t)
	next := certstest.NewCA(t, "next CA")
	old, fresh := s.client(s.clients.Issue(t, "alice", nil)), s.client(next.Issue(t, "bob", nil))
	put := func(data []byte) {
		t.Helper()
		certstest.Write(t, s.config.ClientCAFile, data)
	}
	put(certstest.TrustBundle(t, s.clients))
	store := s.open(t)
	see := func(what string, oldIn, freshIn bool) {
		t.Helper()
		_, errOld := handshake(t, store.TLS(), old)
		_, errFresh := handshake(t, store.TLS(), fresh)
		if (errOld == nil) != oldIn || (errFresh == nil) != freshIn {
			t.Errorf("%s: old %v, new %v", what, errOld, errFresh)
		}
	}
	see("first", true, false)
	put(certstest.TrustBundle(t, s.clients, next))
	if err := store.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	see("both", true, true)
	put(append([]byte("\n "), certstest.TrustBundle(t, next)...))
	if err := store.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	see("second", false, true)

	leaf := s.clients.Issue(t, "leaf", nil)
	entry := func(use string, certificates ...[]byte) any { return map[string]any{"use": use, "x5c": certificates} }
	for name, keys := range map[string][]any{
		"no keys":               {},
		"none for x509-svid":    {entry("jwt-svid", s.clients.Certificate.Raw), entry("", s.clients.Certificate.Raw)},
		"without certificate":   {entry("x509-svid", s.clients.Certificate.Raw), entry("x509-svid")},
		"with two certificates": {entry("x509-svid", s.clients.Certificate.Raw, next.Certificate.Raw)},
		"with a leaf":           {entry("x509-svid", leaf.Certificate[0])},
		"with a broken one":     {entry("x509-svid", []byte("junk"))},
	} {
		data, err := json.Marshal(map[string]any{"keys": keys})
		if err != nil {
			t.Fatal(err)
		}
		put(data)
		if _, err := certs.New(s.config, certs.Deps{}); err == nil {
			t.Errorf("%s: taken", name)
		}
		if err := store.Reload(t.Context()); err == nil {
			t.Errorf("%s: reloaded", name)
		}
	}
	put([]byte(`{"keys": [`))
	if err := store.Reload(t.Context()); err == nil {
		t.Error("a bundle that is cut off: reloaded")
	}
	see("the last good one", false, true)
}

// TestTrustDomain: an ID has one spelling.
func TestTrustDomain(t *testing.T) {
	for id, want := range map[string]string{
		"spiffe://example.org/a/b": "example.org", "spiffe://a-b_c.9": "a-b_c.9",
		"SPIFFE://example.org/a": "", "spiffe:///a": "", "spiffe:example.org": "", "example.org": "", "": "", "spiffe://example.org/%61": "",
		"spiffe://example.org/a/": "", "spiffe://Example.org/a": "", "spiffe://u@example.org/a": "", "spiffe://example.org:1/a": "", "spiffe://example.org/a?": "",
	} {
		got, err := certs.TrustDomain(id)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", id, got, err)
		}
	}
}
