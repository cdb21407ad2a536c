package edgestack

import "strings"

// tlsContext is a TLSContext: for the listener if it has hosts, else for upstreams.
type tlsContext struct {
	hosts                []string
	secret, ca, crl, min string
	required             bool
	sni                  string
	spec                 *section
	used                 bool
}

func readTLSContext(res *resource) *tlsContext {
	s := res.spec
	c := &tlsContext{
		hosts: s.texts("hosts"), secret: s.text("secret"), ca: s.text("ca_secret"), crl: s.text("crl_secret"),
		required: s.flag("cert_required"), sni: s.text("sni"), spec: s,
	}
	s.flag("secret_namespacing")
	switch v := strings.TrimPrefix(strings.ToLower(s.text("min_tls_version")), "v"); v {
	case "", "1.2":
	case "1.3":
		c.min = v
	default:
		s.differ("min_tls_version", "TLS 1.2 is the oldest that is spoken")
	}
	s.without("TLS 1.3 is always spoken", "max_tls_version")
	s.without("the cipher suites and curves are Go's choice", "cipher_suites", "ecdh_curves")
	s.without("the front speaks what it can", "alpn_protocols")
	s.without("set redirect_to_https on a listener without tls", "redirect_cleartext_from")
	s.without("put the files where the configuration names them", "cert_chain_file", "private_key_file", "cacert_chain_file")
	s.without("all resources are taken to be for this gateway", "ambassador_id")
	s.rest()
	return c
}

// files are the names of what is in a secret of type kubernetes.io/tls.
func (c *tlsContext) files(o *output) (cert, key, ca string) {
	if c.secret != "" {
		cert = o.need("secrets/"+clean(c.secret)+"/tls.crt", "the certificate in the secret "+c.secret+" (key tls.crt)")
		key = o.need("secrets/"+clean(c.secret)+"/tls.key", "its private key (key tls.key)")
	}
	if c.ca != "" {
		ca = o.need("secrets/"+clean(c.ca)+"/ca.crt", "the authority in the secret "+c.ca+" (key tls.crt)")
	}
	return cert, key, ca
}
