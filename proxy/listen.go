package proxy

import (
	"net"
	"net/netip"

	proxyproto "github.com/pires/go-proxyproto"
)

// WithPROXY returns ln with the PROXY protocol of cfg in front of it; TLS,
// if any, goes around the result. Peers in trusted_proxies must send a header,
// and their connections then come from where it says. Other peers' bytes are
// left alone, so that a header of theirs is a malformed request.
func WithPROXY(ln net.Listener, cfg ListenerConfig) (net.Listener, error) {
	if !cfg.ProxyProtocol {
		return ln, nil
	}
	trusted, err := prefixes(cfg.TrustedProxies)
	if err != nil {
		return nil, err
	}
	return &proxyproto.Listener{
		Listener:          ln,
		ReadHeaderTimeout: cfg.Limits.HeaderTimeout,
		ConnPolicy: func(o proxyproto.ConnPolicyOptions) (proxyproto.Policy, error) {
			if contains(trusted, o.Upstream) {
				return proxyproto.REQUIRE, nil
			}
			return proxyproto.SKIP, nil
		},
	}, nil
}

func contains(list []netip.Prefix, addr net.Addr) bool {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return false
	}
	ip := tcp.AddrPort().Addr().Unmap()
	for _, p := range list {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}
