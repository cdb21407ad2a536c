package config_test

import (
	"bytes"
	"flag"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport/sallyport/cmd/sallyport/internal/config/reference"
	"github.com/sallyport/sallyport/proxy"
	"github.com/sallyport/sallyport/proxy/authn/apikey"
	"github.com/sallyport/sallyport/proxy/authn/basic"
	"github.com/sallyport/sallyport/proxy/authn/clientcredentials"
	"github.com/sallyport/sallyport/proxy/authn/httpsignature"
	"github.com/sallyport/sallyport/proxy/authn/introspection"
	"github.com/sallyport/sallyport/proxy/authn/jwt"
	"github.com/sallyport/sallyport/proxy/authn/kubernetes"
	"github.com/sallyport/sallyport/proxy/authn/mtls"
	"github.com/sallyport/sallyport/proxy/authn/signedheader"
	"github.com/sallyport/sallyport/proxy/certs"
	"github.com/sallyport/sallyport/proxy/grant"
	"github.com/sallyport/sallyport/proxy/identitytoken"
	"github.com/sallyport/sallyport/proxy/route"
	"github.com/sallyport/sallyport/proxy/upstream"
)

var update = flag.Bool("update", false, "write the files that come from the code")

const intro = `Generated from the code by ` + "`make generate`" + `. YAML; a key that is not listed here is an error that
names file, line and the nearest known key. Durations are written ` + "`5s`" + `, sizes ` + "`10MiB`" + `, rates ` + "`100/s`" + `. ` + "`${NAME}`" + ` in a value is the
environment variable NAME; ` + "`$${`" + ` is a literal ` + "`${`" + `. Relative file names are relative to the configuration file.
In section names, ` + "`NAME`" + ` stands for a name that you choose and ` + "`[]`" + ` for each element of a list.`

// TestGenerated holds the schema and the reference page to the structs.
func TestGenerated(t *testing.T) {
	sample := config.Default()
	sample.Listeners = []config.Listener{{ListenerConfig: proxy.DefaultListener(), TLS: &certs.Config{Options: []certs.Options{{}}}}}
	sample.Authenticators = map[string]config.Authenticator{"NAME": {
		JWT:           new(jwt.Default()),
		Introspection: new(introspection.Default()),
		Kubernetes:    new(kubernetes.Default()),
		MTLS:          &mtls.Config{Forwarded: &mtls.Forwarded{}},
		APIKey:        new(apikey.Default()),
		Basic:         new(basic.Default()),
		SignedHeader:  new(signedheader.Default()),

		ClientCredentials: new(clientcredentials.Default()),
		HTTPSignature:     new(httpsignature.Default()),
	}}
	sample.Authenticators["NAME"].ClientCredentials.Introspection = new(introspection.Default())
	sample.Upstreams = map[string]upstream.Config{"NAME": upstream.Default()}
	sample.Routes = []route.Config{{}}
	sample.TokenExchanges = map[string]grant.ExchangeConfig{"NAME": grant.DefaultExchange()}
	sample.ClientCredentials = map[string]grant.CredentialsConfig{"NAME": grant.DefaultCredentials()}
	sample.IdentityToken = new(identitytoken.Default())
	t.Chdir("../../../..") // the comments are found by their package's path below the module
	s, err := reference.Schema(sample, "Configuration")
	if err != nil {
		t.Fatal(err)
	}
	text, err := reference.JSON(s)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "cmd/sallyport/internal/config/schema.json", text)
	golden(t, "docs/reference/config.md", []byte(reference.Markdown(s, intro)))
}

// golden compares with a committed file, or writes it with -update.
func golden(t *testing.T, file string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(file)
	if *update && !bytes.Equal(got, want) {
		err = os.WriteFile(file, want, 0o644)
		got = want
	}
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s is not what the code says; run make generate:\n%s", file, d)
	}
}
