package engine

import (
	"fmt"
	"sync/atomic"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/sallyport/sallyport/engine/authz"
)

// identityTerms is what Identity.Memo keeps: the identity's part of the document
// is the same for all requests with that credential.
type identityTerms struct {
	term *ast.Term
	err  error
	keys atomic.Pointer[[]identityKey]
}

// identityPart builds the identity whole whatever is read of it, because it is
// built once and then shared.
func identityPart(d *document) *ast.Term {
	if d.in.Identity == nil {
		return nil
	}
	memo := termsOf(d.in.Identity)
	if memo.err != nil {
		return d.fail(memo.err)
	}
	return memo.term
}

func termsOf(id *authz.Identity) *identityTerms {
	if memo, ok := id.Memo(func(id *authz.Identity) any { return buildIdentity(id) }).(*identityTerms); ok {
		return memo
	}
	return buildIdentity(id) // somebody else's memo; ours is still right
}

func buildIdentity(id *authz.Identity) *identityTerms {
	o := object{}
	o.add("authenticated", ast.BooleanTerm(id.Authenticated))
	o.add("authenticator", textTerm(id.Authenticator))
	o.add("kind", textTerm(id.Kind))
	o.add("subject", textTerm(id.Subject))
	o.add("issuer", textTerm(id.Issuer))
	o.add("audiences", knownList(id.Audiences))
	o.add("scopes", knownList(id.Scopes))
	o.addJSON("claims", id.Claims)
	o.addToken(id.TokenHeader)
	if !id.ExpiresAt.IsZero() {
		o.add("expires_at", intTerm(id.ExpiresAt.Unix()))
	}
	o.addJSON("actor", id.Actor)
	return &identityTerms{term: o.term(), err: o.err}
}

// object collects members of an object; nil terms are left out.
type object struct {
	pairs [][2]*ast.Term
	err   error
}

func (o *object) add(name string, term *ast.Term) {
	if term != nil {
		o.pairs = append(o.pairs, [2]*ast.Term{ast.StringTerm(name), term})
	}
}

func (o *object) addJSON(name string, value map[string]any) {
	if value == nil {
		return
	}
	v, err := ast.InterfaceToValue(value)
	if err != nil {
		o.err = fmt.Errorf("input.identity.%s: %w", name, err)
		return
	}
	o.add(name, ast.NewTerm(v))
}

func (o *object) addToken(header map[string]any) {
	if header == nil {
		return
	}
	token := object{}
	token.addJSON("header", header)
	if token.err != nil {
		o.err = token.err
	}
	o.add("token", token.term())
}

func (o *object) term() *ast.Term { return ast.NewTerm(ast.NewObject(o.pairs...)) }

func tlsFields() []field {
	return []field{
		textField("version", func(in *authz.Input) string { return in.TLS.Version }),
		textField("cipher", func(in *authz.Input) string { return in.TLS.Cipher }),
		textField("server_name", func(in *authz.Input) string { return in.TLS.ServerName }),
		{name: "client_certificate", build: certificatePart, key: certificateKey},
	}
}

func certificatePart(d *document) *ast.Term {
	c := d.in.TLS.ClientCertificate
	if c == nil {
		return nil
	}
	o := object{}
	o.add("subject", textTerm(c.Subject))
	o.add("issuer", textTerm(c.Issuer))
	o.add("serial", textTerm(c.Serial))
	o.add("sha256", textTerm(c.SHA256))
	o.add("dns_names", listTerm(c.DNSNames))
	o.add("uris", listTerm(c.URIs))
	o.add("emails", listTerm(c.Emails))
	o.add("spiffe_id", textTerm(c.SPIFFEID))
	o.add("not_before", timeTerm(c.NotBefore))
	o.add("not_after", timeTerm(c.NotAfter))
	return o.term()
}
