package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"reflect"

	"github.com/sallyport/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport/sallyport/proxy"
	"github.com/sallyport/sallyport/proxy/certs"
)

// socket is one open listener. It outlives reloads as long as its address and its
// TLS files keep their names.
type socket struct {
	cfg   config.Listener
	net   net.Listener
	certs *certs.Store // nil without TLS
	stop  func()       // nil: not serving
}

// keeps tells whether the socket serves a changed configuration of its listener:
// everything but the address, TLS and PROXY protocol is in the front's snapshot.
func (s *socket) keeps(c config.Listener) bool {
	return s.cfg.Name == c.Name && s.cfg.Address == c.Address && s.cfg.ProxyProtocol == c.ProxyProtocol &&
		reflect.DeepEqual(s.cfg.TLS, c.TLS) && (!c.ProxyProtocol || reflect.DeepEqual(s.cfg.TrustedProxies, c.TrustedProxies))
}

// openListeners opens the sockets that are new and takes the others from old. On
// error what it opened is closed again.
func (a *App) openListeners(ctx context.Context, cfg *config.Config, old map[string]*socket) (map[string]*socket, error) {
	out := make(map[string]*socket, len(cfg.Listeners))
	for _, c := range cfg.Listeners {
		if o, ok := old[c.Name]; ok && o.keeps(c) {
			out[c.Name] = o
			continue
		}
		s, err := a.openListener(ctx, c, old)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("listener %s: %w", c.Name, err), closeNew(out, old))
		}
		out[c.Name] = s
	}
	return out, nil
}

func (a *App) openListener(ctx context.Context, c config.Listener, old map[string]*socket) (*socket, error) {
	s := &socket{cfg: c}
	var err error
	if c.TLS != nil {
		if s.certs, err = certs.New(*c.TLS, certs.Deps{Logger: a.logger}); err != nil {
			return nil, err
		}
	}
	if s.net, err = a.listen(ctx, c.Address); err != nil {
		for _, o := range old {
			if o.cfg.Address == c.Address {
				return nil, fmt.Errorf("%w; a change of the TLS or PROXY protocol settings of an address that is in use needs a restart", err)
			}
		}
		return nil, err
	}
	if s.net, err = proxy.WithPROXY(s.net, c.ListenerConfig); err != nil {
		return nil, err
	}
	return s, nil
}

func (a *App) listen(ctx context.Context, address string) (net.Listener, error) {
	return new(net.ListenConfig).Listen(ctx, "tcp", address)
}

// closeNew closes the sockets of all that are not of old.
func closeNew(all, old map[string]*socket) error {
	var errs []error
	for name, s := range all {
		if old[name] != s {
			errs = append(errs, s.net.Close())
		}
	}
	return errors.Join(errs...)
}

// tls returns the TLS side of the socket, nil without.
func (s *socket) tls() *tls.Config {
	if s.certs == nil {
		return nil
	}
	return s.certs.TLS()
}

// serveSockets serves the sockets of g that are not served yet.
func (a *App) serveSockets(g *generation) {
	for name, s := range g.sockets {
		if s.stop != nil {
			continue
		}
		l := s.net
		if conf := s.tls(); conf != nil {
			l = tls.NewListener(l, conf)
		}
		s.stop = a.crew.start("listener "+name, func(ctx context.Context) error { return a.front.Serve(ctx, l, name) })
	}
}
