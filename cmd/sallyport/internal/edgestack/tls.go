package edgestack

import (
	"maps"
	"slices"
	"strings"
)

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

// ofListener returns the key of the TLSContext that the one listener has, empty if it
// has none: the first with hosts and a certificate.
func ofListener(contexts map[string]*tlsContext) string {
	for _, key := range slices.Sorted(maps.Keys(contexts)) {
		if c := contexts[key]; len(c.hosts) > 0 && c.secret != "" {
			return key
		}
	}
	return ""
}

// uncertified returns rules that close the hosts of TLSContexts whose clients had to
// show a certificate, where the listener does not ask them for one.
func uncertified(contexts map[string]*tlsContext) (out []*rule) {
	listener := ofListener(contexts)
	for _, key := range slices.Sorted(maps.Keys(contexts)) {
		c := contexts[key]
		if !c.required || len(c.hosts) == 0 || key == listener && c.ca != "" {
			continue
		}
		c.spec.differ("cert_required", "is not carried over: what the hosts %s have is denied, since clients would come without a client certificate; write a listener, or TLS options, of their own",
			strings.Join(c.hosts, ", "))
		for _, glob := range c.hosts {
			host, _ := hostPattern(glob) // one that cannot be said closes every host
			out = append(out, &rule{
				region: region{host: host, rest: true}, closed: "the TLSContext " + key + " demands a client certificate, which nobody asks for",
				label: key + " cert_required", spec: c.spec, used: true,
			})
		}
	}
	return out
}
