package config

import (
	"errors"
	"reflect"
	"strings"

	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/authn/anonymous"
	"github.com/sallyport/sallyport/proxy/authn/apikey"
	"github.com/sallyport/sallyport/proxy/authn/basic"
	"github.com/sallyport/sallyport/proxy/authn/clientcredentials"
	"github.com/sallyport/sallyport/proxy/authn/httpsignature"
	"github.com/sallyport/sallyport/proxy/authn/introspection"
	"github.com/sallyport/sallyport/proxy/authn/jwt"
	"github.com/sallyport/sallyport/proxy/authn/kubernetes"
	"github.com/sallyport/sallyport/proxy/authn/mtls"
	"github.com/sallyport/sallyport/proxy/authn/oidc"
	"github.com/sallyport/sallyport/proxy/authn/signedheader"
)

// Authenticator is one mechanism: exactly one of its keys is set. Its fields are
// pointers to the Config of a package below proxy/authn, and a kind is one field.
type Authenticator struct {
	// JWT verifies JSON Web Tokens of one issuer from the Authorization header.
	JWT *jwt.Config `yaml:"jwt"`
	// Introspection asks the provider that issued a bearer token about it, for tokens
	// that say nothing by themselves.
	Introspection *introspection.Config `yaml:"introspection"`
	// Kubernetes asks a cluster's API server about service account tokens.
	Kubernetes *kubernetes.Config `yaml:"kubernetes"`
	// MTLS takes the identity from the client's certificate.
	MTLS *mtls.Config `yaml:"mtls"`
	// OIDC has people log in at an OpenID provider and keeps their sessions.
	OIDC *oidc.Config `yaml:"oidc"`
	// APIKey takes the identity from an API key in a header.
	APIKey *apikey.Config `yaml:"api_key"`
	// Basic takes the identity from a name and a password in the Authorization header.
	Basic *basic.Config `yaml:"basic"`
	// SignedHeader takes the identity from a header that a proxy in front signs.
	SignedHeader *signedheader.Config `yaml:"signed_header"`
	// ClientCredentials gets a token for callers that send a client identifier and a
	// secret in headers, or a JWT that they signed.
	ClientCredentials *clientcredentials.Config `yaml:"client_credentials"`
	// HTTPSignature takes the identity from a signature of the request (RFC 9421).
	HTTPSignature *httpsignature.Config `yaml:"http_signature"`
	// Anonymous lets requests without a credential reach the policy.
	Anonymous *anonymous.Config `yaml:"anonymous"`
}

// Kind returns the key that is set, empty if there is none.
func (a Authenticator) Kind() string {
	if set := a.set(); len(set) > 0 {
		return set[0].key
	}
	return ""
}

// Insecure returns what weakens the gateway, by key, and what it means.
func (a Authenticator) Insecure() map[string]string {
	out := map[string]string{}
	for _, k := range a.set() {
		if c, ok := k.config.(interface{ Insecure() map[string]string }); ok {
			for key, means := range c.Insecure() {
				out[k.key+"."+key] = means
			}
		}
	}
	return out
}

// mechanism is a key of Authenticator with its value.
type mechanism struct {
	key    string
	config any
}

func (a Authenticator) set() (set []mechanism) {
	v := reflect.ValueOf(a)
	for i := range v.NumField() {
		if !v.Field(i).IsNil() {
			set = append(set, mechanism{v.Type().Field(i).Tag.Get("yaml"), v.Field(i).Interface()})
		}
	}
	return set
}

func (a Authenticator) validate() error {
	set := a.set()
	var errs []error
	for _, k := range set {
		if c, ok := k.config.(interface{ Validate() error }); ok {
			errs = append(errs, setting.Under(k.key, c.Validate()))
		}
	}
	if len(set) != 1 {
		errs = append(errs, setting.Problemf("", "has %d kinds; give exactly one of %s", len(set), strings.Join(authenticatorKinds(), ", ")))
	}
	return errors.Join(errs...)
}

func authenticatorKinds() (keys []string) {
	for f := range reflect.TypeFor[Authenticator]().Fields() {
		keys = append(keys, f.Tag.Get("yaml"))
	}
	return keys
}
