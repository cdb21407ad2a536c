package certs

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/sallyport/sallyport/engine/setting"
)

// Options are the TLS settings of some server names, in place of the listener's.
type Options struct {
	// ServerNames are the names for which these settings count, as clients give them in
	// the handshake (SNI, RFC 6066 section 3): compared without case; *.example.com is
	// any name below example.com, and the longest one counts. Requests on such a connection
	// must be for hosts with the same settings of client certificates, else they get 421.
	ServerNames []string `yaml:"server_names"`
	// CertFile holds the PEM certificate for these names; the listener's by default.
	CertFile string `yaml:"cert_file" sallyport:"path"`
	// KeyFile holds the PEM private key that belongs to it.
	KeyFile string `yaml:"key_file" sallyport:"path"`
	// ClientAuth is none, optional or required, and must be said: nothing about client
	// certificates is taken from the listener's settings.
	ClientAuth string `yaml:"client_auth"`
	// ClientCAFile holds the PEM certificates of the authorities that client
	// certificates are verified with.
	ClientCAFile string `yaml:"client_ca_file" sallyport:"path"`
	// CRLFiles hold revocation lists, as those of the listener.
	CRLFiles []string `yaml:"crl_files" sallyport:"path"`
	// CRL fetches revocation lists, as that of the listener.
	CRL CRL `yaml:"crl"`
	// OCSP asks the responder of the client's authority, as that of the listener.
	OCSP OCSP `yaml:"ocsp"`
	// Staple is for the certificate in cert_file; without one the listener's counts.
	Staple Staple `yaml:"staple"`
}

// with returns the settings of the names of o.
func (c Config) with(o Options) Config {
	if o.CertFile != "" {
		c.CertFile, c.KeyFile, c.Staple = o.CertFile, o.KeyFile, o.Staple
	}
	c.ClientAuth, c.ClientCAFile, c.CRLFiles, c.CRL, c.OCSP, c.Options = o.ClientAuth, o.ClientCAFile, o.CRLFiles, o.CRL, o.OCSP, nil
	return c
}

// all returns the settings of the names that are not listed, and of each of the options.
func (c Config) all() []Config {
	own := c
	own.Options = nil
	list := []Config{own}
	for _, o := range c.Options {
		list = append(list, c.with(o))
	}
	return list
}

func (c Config) validateOptions() error {
	var errs []error
	seen := map[string]bool{}
	for i, o := range c.Options {
		err := errors.Join(o.validateNames(seen), c.with(o).validateClients(), setting.Under("crl", o.CRL.validate()),
			setting.Under("ocsp", o.OCSP.validate()), setting.Under("staple", o.Staple.validate()))
		if o.ClientAuth == "" {
			err = errors.Join(err, setting.Problemf("client_auth", "is missing: say none, optional or required for these names"))
		}
		if (o.CertFile == "") != (o.KeyFile == "") {
			err = errors.Join(err, setting.Problemf("cert_file", "and key_file belong together"))
		}
		if o.Staple.on() && o.CertFile == "" {
			err = errors.Join(err, setting.Problemf("staple.mode", "has no effect without cert_file: the listener's certificate is shown"))
		}
		errs = append(errs, setting.Under(fmt.Sprintf("options[%d]", i), err))
	}
	return errors.Join(errs...)
}

func (o Options) validateNames(seen map[string]bool) error {
	if len(o.ServerNames) == 0 {
		return setting.Problemf("server_names", "is missing: it says for whom these settings count")
	}
	var errs []error
	for _, name := range o.ServerNames {
		key := strings.ToLower(name)
		switch {
		case !validName(strings.TrimPrefix(key, "*.")):
			errs = append(errs, setting.Problemf("server_names", "%q is neither a DNS name nor *.name", name))
		case seen[key]:
			errs = append(errs, setting.Problemf("server_names", "%q is there twice; settings are never merged", name))
		}
		seen[key] = true
	}
	return errors.Join(errs...)
}

// validName refuses what no client gives as a server name: addresses and names that
// end with a dot among them.
func validName(name string) bool {
	if net.ParseIP(name) != nil || len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || strings.ContainsFunc(label, notTrustDomain) {
			return false
		}
	}
	return true
}

// Names say which settings of client certificates belong to a server name. They are
// immutable, and safe for concurrent use.
type Names struct {
	exact, below map[string]int
	keys         []string // by index: the same for the same settings
}

// NewNames returns the names of c; nil if all have the same settings.
func NewNames(c Config) *Names {
	if len(c.Options) == 0 {
		return nil
	}
	n := &Names{exact: map[string]int{}, below: map[string]int{}}
	for i, o := range c.Options {
		for _, name := range o.ServerNames {
			name = strings.ToLower(name)
			if parent, ok := strings.CutPrefix(name, "*."); ok {
				n.below[parent] = i + 1
			} else {
				n.exact[name] = i + 1
			}
		}
	}
	for _, one := range c.all() {
		n.keys = append(n.keys, one.clientsKey())
	}
	return n
}

// clientsKey is the same for the same settings of client certificates.
func (c Config) clientsKey() string {
	key, err := json.Marshal([]any{c.clientAuth(), c.ClientCAFile, c.CRLFiles, c.CRL, c.OCSP})
	if err != nil {
		panic(err) // strings and numbers have a JSON form
	}
	return string(key)
}

// index returns which settings count for a name; 0 are the listener's own.
func (n *Names) index(name string) int {
	if n == nil {
		return 0
	}
	if i, ok := n.exact[name]; ok {
		return i
	}
	for {
		_, parent, ok := strings.Cut(name, ".")
		if !ok {
			return 0
		}
		if i, ok := n.below[parent]; ok {
			return i
		}
		name = parent
	}
}

// Of returns what tells the settings for a host name in lower case apart from others.
func (n *Names) Of(host string) string { return n.keys[n.index(host)] }

// Conn is a client's connection that knows the settings that its client certificate
// was verified by.
type Conn struct {
	*tls.Conn
	names *Names
}

// Server returns the server's side of a TLS connection over c.
func (s *Store) Server(c net.Conn) *Conn { return &Conn{tls.Server(c, s.base), s.names} }

// Options returns what Names.Of returned for the server name of the handshake, which
// must have ended; empty if all names have the same settings. A client cannot change
// the name within a handshake (RFC 8446 section 4.1.2).
func (c *Conn) Options() string {
	if c.names == nil {
		return ""
	}
	return c.names.Of(strings.ToLower(c.ConnectionState().ServerName))
}
