package app

import (
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport/sallyport/proxy"
	"github.com/sallyport/sallyport/proxy/authn/anonymous"
	"github.com/sallyport/sallyport/proxy/authn/basic"
	"github.com/sallyport/sallyport/proxy/certs"
)

// TestPlainPasswords: the start names the listeners at which passwords arrive
// without TLS from other machines.
func TestPlainPasswords(t *testing.T) {
	listen := func(address string) config.Listener {
		return config.Listener{ListenerConfig: proxy.ListenerConfig{Address: address}}
	}
	secure, redirect := listen(":8443"), listen(":8080")
	secure.TLS, redirect.RedirectToHTTPS = &certs.Config{}, true
	cfg := &config.Config{
		Listeners:      []config.Listener{listen("127.0.0.1:80"), listen("[::1]:80"), listen("localhost:80"), secure, redirect, listen(":80"), listen("192.0.2.1:80")},
		Authenticators: map[string]config.Authenticator{"ops": {Basic: &basic.Config{}}},
	}
	got := slices.Sorted(maps.Keys(plainPasswords(cfg)))
	if d := cmp.Diff([]string{"listeners[5].tls", "listeners[6].tls"}, got); d != "" {
		t.Error(d)
	}
	cfg.Authenticators = map[string]config.Authenticator{"anyone": {Anonymous: &anonymous.Config{}}}
	if got := plainPasswords(cfg); len(got) != 0 {
		t.Errorf("without passwords: %v", got)
	}
}

// TestSoftRevocationLists: the start names the listeners that let clients in although it is
// not known whether they are revoked.
func TestSoftRevocationLists(t *testing.T) {
	crl := certs.CRL{URLs: []string{"http://pki.example/a.crl"}}
	hard, soft := config.Listener{TLS: &certs.Config{CRL: crl}}, config.Listener{}
	crl.Mode = "soft"
	soft.TLS = &certs.Config{CRL: crl, Options: []certs.Options{{ServerNames: []string{"a.test"}, CRL: crl}}}
	got := slices.Sorted(maps.Keys(insecureChoices(&config.Config{Listeners: []config.Listener{hard, soft, {}}})))
	if d := cmp.Diff([]string{"listeners[1].tls.crl.mode", "listeners[1].tls.options[0].crl.mode"}, got); d != "" {
		t.Error(d)
	}
}
