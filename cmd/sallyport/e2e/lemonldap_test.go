//go:build e2e

package e2e_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport/sallyport/proxy/authn/oidc/oidctest"
)

const lemonApp = "/usr/share/lemonldap-ng/portal/htdocs/index.psgi"

// lemonINI is where the portal finds its configuration.
const lemonINI = `[all]
logLevel = error
logger = Lemonldap::NG::Common::Logger::Std
userLogger = Lemonldap::NG::Common::Logger::Std
[configuration]
type = File
dirName = ${DIR}/conf
localStorage = Cache::FileCache
localStorageOptions = { 'namespace' => 'config', 'cache_root' => '${DIR}/cache', 'cache_depth' => 3 }
[portal]
staticPrefix = /static
templateDir = /usr/share/lemonldap-ng/portal/templates
languages = en
`

// lemonCaptcha stands in the place of a captcha, which nobody here is asked for: the
// portal loads one all the same, and its own needs ImageMagick.
const lemonCaptcha = `package NoCaptcha;
use strict;
use Mouse;
extends 'Lemonldap::NG::Portal::Main::Plugin';
sub init { 1 }
1;
`

// lemonConfig is the portal's configuration: users of its demonstration, whose
// passwords are their names, and one relying party.
func lemonConfig(t *testing.T, dir, issuer, gateway string) string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	text := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	sessions := func(name string) map[string]string {
		at := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Join(at, "lock"), 0o700); err != nil {
			t.Fatal(err)
		}
		return map[string]string{
			"Directory": at, "LockDirectory": filepath.Join(at, "lock"), "generateModule": "Lemonldap::NG::Common::Apache::Session::Generate::SHA256",
		}
	}
	const option = "oidcRPMetaDataOptions"
	data, err := json.Marshal(map[string]any{
		"cfgNum": 1, "cfgVersion": "2.16.1", "cfgDate": "1", "cfgAuthor": "test", "key": "for the test only",
		"authentication": "Demo", "userDB": "Same", "passwordDB": "Null", "registerDB": "Null",
		"demoExportedVars": map[string]string{"cn": "cn", "mail": "mail", "uid": "uid"}, "macros": map[string]string{"_whatToTrace": "$uid"}, "whatToTrace": "_whatToTrace",
		"portal": issuer + "/", "domain": "localhost", "cookieName": "lemonldap", "securedCookie": 0, "timeout": 3600,
		"captcha": "NoCaptcha", "notification": 0, "loginHistoryEnabled": 0, "locationRules": map[string]any{"localhost": map[string]string{"default": "accept"}},
		"globalStorage": "Apache::Session::File", "globalStorageOptions": sessions("sessions"),
		"persistentStorage": "Apache::Session::File", "persistentStorageOptions": sessions("psessions"),
		"localSessionStorage":             "Cache::FileCache",
		"localSessionStorageOptions":      map[string]any{"cache_root": filepath.Join(dir, "cache"), "namespace": "sessions", "cache_depth": 3},
		"issuerDBOpenIDConnectActivation": 1, "oidcServiceMetaDataIssuer": issuer,
		"oidcServicePrivateKeySig": text("PRIVATE KEY", private), "oidcServicePublicKeySig": text("PUBLIC KEY", public), "oidcServiceKeyIdSig": "k1",
		"oidcRPMetaDataExportedVars": map[string]any{"web": map[string]string{"email": "mail"}},
		option: map[string]any{"web": map[string]any{
			option + "ClientID": "web", option + "ClientSecret": "a-secret-for-the-test-only", option + "IDTokenSignAlg": "RS256", option + "UserIDAttr": "uid",
			option + "RedirectUris": gateway + "/oauth2/callback", option + "PostLogoutRedirectUris": gateway + "/public/bye",
			option + "RequirePKCE": 1, option + "RefreshToken": 1, option + "AccessTokenExpiration": 12, option + "BypassConsent": 1,
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// lemonldap is LemonLDAP::NG, an OpenID provider in Perl, and returns its issuer.
func lemonldap(t *testing.T, gateway string) string {
	t.Helper()
	if _, err := os.Stat(lemonApp); err != nil {
		t.Skipf("%v: LemonLDAP::NG is not installed, which this test runs; do it with: .ci/deps e2e", err)
	}
	dir, address := t.TempDir(), freeAddress(t)
	issuer := strings.Replace("http://"+address, "127.0.0.1", "localhost", 1) // its cookies are for a domain, which an address is not
	write(t, dir+"/lemonldap-ng.ini", os.Expand(lemonINI, func(string) string { return dir }))
	write(t, dir+"/lib/NoCaptcha.pm", lemonCaptcha)
	write(t, dir+"/conf/lmConf-1.json", lemonConfig(t, dir, issuer, gateway))
	said := &output{}
	cmd := exec.Command("starman", "-I", dir+"/lib", "--listen", address, "--workers", "3", "--env", "deployment", lemonApp)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, append(os.Environ(), "LLNG_DEFAULTCONFFILE="+dir+"/lemonldap-ng.ini"), said, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it ends its workers
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("the portal said:\n%s", said)
		}
	})
	eventually(t, 30*time.Second, "the portal answers", func() bool { return status(issuer+"/.well-known/openid-configuration") == 200 })
	return issuer
}

// atPortal goes through the portal's pages until the gateway answers.
func (p *person) atPortal(pg oidctest.Page, gateway string) oidctest.Page {
	p.t.Helper()
	for range 5 {
		if pg.URL.Host == gateway {
			return pg
		}
		fill := map[string]string{}
		if strings.Contains(pg.Text, `name="password"`) {
			p.Logins++
			fill = map[string]string{"user": "dwho", "password": "dwho"}
		}
		pg = p.Submit(pg, fill)
	}
	p.t.Fatalf("still at %s: %d %s", pg.URL, pg.Status, pg.Text)
	return pg
}

// TestLemonLDAP goes the whole way with a provider of another kind: it does not name itself in its answers, does not exchange refresh
// tokens, asks who is logged in, and sends no logout tokens.
func TestLemonLDAP(t *testing.T) {
	s := newSite(t, paths)
	base := "https://" + s.addr
	issuer := lemonldap(t, base)
	write(t, s.file("secret"), "a-secret-for-the-test-only\n")
	write(t, s.file("key"), strings.Repeat("5e", 32)+"\n")
	s.login(t, issuer, "keys_files: [key]")
	s.start(t)

	p := s.person(t)
	pg := p.atPortal(p.Get(base+"/v1/orders?a=b"), s.addr)
	var echo struct{ Headers map[string]string }
	if err := json.Unmarshal([]byte(pg.Text), &echo); err != nil || pg.Status != 200 || pg.URL.RequestURI() != "/v1/orders?a=b" {
		t.Fatalf("after the login %s answers %d: %s", pg.URL, pg.Status, pg.Text)
	}
	if got := echo.Headers["X-User"] + " " + echo.Headers["X-Mail"]; got != "dwho dwho@badwolf.org" { // the address is in the userinfo alone
		t.Errorf("the upstream sees %q", got)
	}
	for range 2 { // the same refresh token is good again
		before := p.cookies(s)
		eventually(t, 30*time.Second, "the session is renewed", func() bool { return p.in(s) && p.cookies(s) != before })
	}
	if p.Logins != 1 {
		t.Errorf("logged in %d times", p.Logins)
	}

	copied := p.cookies(s)
	pg = p.atPortal(p.Submit(p.Get(base+"/oauth2/logout"), nil), s.addr)
	if pg.Status != 200 || pg.URL.Path != "/public/bye" {
		t.Errorf("after the logout %s answers %d", pg.URL, pg.Status)
	}
	if got := s.person(t).ask(s, "/v1/orders", "Cookie", copied); got != 401 {
		t.Errorf("after the logout a copy of the cookies gets %d", got)
	}
	if pg = p.Get(base + "/v1/orders"); pg.URL.Host == s.addr || !strings.Contains(pg.Text, `name="password"`) {
		t.Errorf("after the logout the portal knows them still: %d at %s", pg.Status, pg.URL)
	}

	// Who logs out at the portal alone is logged in here until the next renewal, which it refuses.
	if pg = p.atPortal(pg, s.addr); pg.Status != 200 {
		t.Fatalf("login: %d %s", pg.Status, pg.Text)
	}
	p.Get(issuer + "/?logout=1")
	eventually(t, 30*time.Second, "the session ended", func() bool { return !p.in(s) })
}
