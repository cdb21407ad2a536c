package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
	"golang.org/x/crypto/bcrypt"

	"github.com/sallyport/sallyport/proxy/certs/certstest"
)

const pagesDir = "../../docs"

// otherFormat are pages whose YAML is for another program: values of the chart.
var otherFormat = map[string]bool{"run-on-kubernetes": true}

var fence = regexp.MustCompile("(?s)```(yaml|rego|html)\n(.*?)```")

// pageFiles writes the files that pages tell their readers to have.
func pageFiles(t *testing.T, dir string) {
	t.Helper()
	ca := certstest.NewCA(t, "authority")
	server := ca.Issue(t, "localhost", func(c *x509.Certificate) { c.OCSPServer = []string{"http://127.0.0.1:9"} })
	server.Certificate = append(server.Certificate, ca.Certificate.Raw) // what is stapled is checked with the issuer's
	for _, name := range []string{"server", "gateway", "client"} {
		certstest.WritePair(t, server, filepath.Join(dir, name+".cert"), filepath.Join(dir, name+".key"))
		if err := os.Rename(filepath.Join(dir, name+".cert"), filepath.Join(dir, name+".pem")); err != nil {
			t.Fatal(err)
		}
	}
	key, err := os.ReadFile(filepath.Join(dir, "client.key"))
	if err != nil {
		t.Fatal(err)
	}
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	password, err := bcrypt.GenerateFromPassword([]byte("a password"), 10)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"clients-ca.pem": ca.PEM(), "clients.pem": ca.PEM(), "mesh-ca.pem": ca.PEM(), "admins.pem": ca.PEM(), "partners.pem": ca.PEM(), "internal-ca.pem": ca.PEM(),
		"ca.crt": ca.PEM(), "admins.crl": ca.RevocationList(t, time.Now().Add(time.Hour)), "bundle.json": certstest.TrustBundle(t, ca),
		"client.pem": key, "keys.pem": key, "acme.pem": []byte(publicPEM(t, public)),
		"htpasswd": []byte("alice:" + strings.Replace(string(password), "$2a$", "$2y$", 1) + "\n"),
		"secret":   []byte("a-secret\n"), "redis.password": []byte("a-secret\n"), "redis-password": []byte("a-secret\n"), "token": []byte("a.b.c\n"),
		"session.key": []byte(base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32)) + "\n"),
		"logo.svg":    []byte(`<svg xmlns="http://www.w3.org/2000/svg"/>`), "acme.css": []byte("h1 { text-transform: uppercase }"),
		"keys.yaml": []byte(sallyport(t, "key", "new", "--id", "acme-1", "--subject", "acme", "--scope", "orders:read", "--expires-in", "2160h")),
	} {
		certstest.Write(t, filepath.Join(dir, name), data)
	}
}

func publicPEM(t *testing.T, key any) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// whole adds to a piece of a configuration what its page leaves to the reader.
func whole(piece map[string]any) map[string]any {
	config := maps.Clone(piece)
	fill(config, map[string]any{
		"version":        "v1",
		"listeners":      []any{map[string]any{"name": "public", "address": "127.0.0.1:8080"}},
		"authenticators": map[string]any{},
		"upstreams":      map[string]any{},
		"routes":         []any{map[string]any{"name": "all"}},
		"policy":         map[string]any{"paths": []any{"policies"}},
	})
	authenticators, upstreams := config["authenticators"].(map[string]any), config["upstreams"].(map[string]any)
	var names []any
	for name, a := range authenticators {
		names = append(names, name)
		// In a cluster these have defaults, of files that every pod has.
		if k, is := a.(map[string]any)["kubernetes"].(map[string]any); is {
			fill(k, map[string]any{"api_server": "https://127.0.0.1:6443", "ca_file": "ca.crt", "token_file": "token"})
		}
	}
	if names == nil {
		names = []any{"corp"}
	}
	// Pages have routes and the authenticators that these name in different blocks.
	corp := map[string]any{"jwt": map[string]any{"issuer": "https://idp.example", "audiences": []any{"orders-api"}}}
	fill(authenticators, map[string]any{"corp": corp, "mesh": corp})
	for _, r := range config["routes"].([]any) {
		route := r.(map[string]any)
		fill(route, map[string]any{"match": map[string]any{"path": "/" + route["name"].(string) + "/**"}, "authenticate": names, "upstream": "api"})
		fill(upstreams, map[string]any{route["upstream"].(string): map[string]any{"endpoints": []any{"http://127.0.0.1:9000"}}})
	}
	return config
}

// fill adds what is missing.
func fill(into, defaults map[string]any) {
	for name, value := range defaults {
		if into[name] == nil {
			into[name] = value
		}
	}
}

// ownPages has people see the page of an operator.
const ownPages = `
authenticators:
  login: {oidc: {issuer: https://idp.example, client_id: web, client_secret_file: secret, pages: {template_file: page.html}}}
`

// TestPages: every piece of configuration and of policy on the pages for users is
// one that check has nothing to say against.
func TestPages(t *testing.T) {
	pages, err := filepath.Glob(filepath.Join(pagesDir, "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("SIGNING_PUB", publicPEM(t, &providerKey().PublicKey))
	dir := t.TempDir()
	// The library that pages import is the one that the demo writes.
	sallyport(t, "demo", "--dir", dir)
	if err := os.RemoveAll(filepath.Join(dir, "policies", "gateway")); err != nil {
		t.Fatal(err)
	}
	pageFiles(t, dir)
	checked := 0
	for _, page := range pages {
		name := strings.TrimSuffix(filepath.Base(page), ".md")
		if otherFormat[name] {
			continue
		}
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(page)
			if err != nil {
				t.Fatal(err)
			}
			config := "{}" // that a policy stands below
			for _, m := range fence.FindAllStringSubmatch(string(text), -1) {
				policy := "package gateway\n\ndefault decision := {\"allow\": false}\n\n"
				switch {
				case m[1] == "yaml":
					config = m[2]
				case m[1] == "html":
					certstest.Write(t, filepath.Join(dir, "page.html"), []byte(m[2]))
					config = ownPages
				case strings.HasPrefix(m[2], "package "):
					policy = m[2]
				default:
					policy += m[2]
				}
				checkPiece(t, dir, config, policy)
				checked++
			}
		})
	}
	if checked < 30 {
		t.Errorf("checked %d pieces; the search is wrong", checked)
	}
}

func checkPiece(t *testing.T, dir, piece, policy string) {
	t.Helper()
	var config map[string]any
	if err := yaml.Unmarshal([]byte(strings.ReplaceAll(piece, "/var/run/secrets/kubernetes.io/serviceaccount/", "")), &config); err != nil {
		t.Fatalf("%v in\n%s", err, piece)
	}
	text, err := yaml.Marshal(whole(config))
	if err != nil {
		t.Fatal(err)
	}
	certstest.Write(t, filepath.Join(dir, "sallyport.yaml"), text)
	certstest.Write(t, filepath.Join(dir, "policies", "gateway.rego"), []byte(policy))
	if _, problems := tryVerb(t, "check", "-c", filepath.Join(dir, "sallyport.yaml")); problems != "" {
		t.Errorf("%s\nin\n%s\nwith\n%s", problems, piece, policy)
	}
}
