package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"reflect"
	"sync/atomic"

	"github.com/sallyport/sallyport/cmd/sallyport/internal/config"
	"github.com/sallyport/sallyport/proxy"
	"github.com/sallyport/sallyport/proxy/certs"
)

// socket is one open listener with the settings of one generation. The port
// outlives reloads as long as its address stays.
type socket struct {
	cfg   config.Listener
	port  *port
	certs *certs.Store // nil without TLS
	stop  func()       // nil: not serving
	fresh func()       // stops what keeps fresh what certs fetches; nil: not running
}

// port is a listener whose TLS can change while it accepts: each connection gets
// what is configured when it comes.
type port struct {
	net.Listener
	tls atomic.Pointer[certs.Store] // nil: no TLS
}

// Accept waits for the next connection.
func (p *port) Accept() (net.Conn, error) {
	c, err := p.Listener.Accept()
	if store := p.tls.Load(); err == nil && store != nil {
		return store.Server(c), nil
	}
	return c, err
}

// keeps tells whether the port serves a changed configuration of its listener:
// all but the address and the PROXY protocol can change in place.
func (s *socket) keeps(c config.Listener) bool {
	return s.cfg.Name == c.Name && s.cfg.Address == c.Address && s.cfg.ProxyProtocol == c.ProxyProtocol &&
		(!c.ProxyProtocol || reflect.DeepEqual(s.cfg.TrustedProxies, c.TrustedProxies))
}

// openListeners opens the ports that are new and takes the others from old. On
// error what it opened is closed again.
func (a *App) openListeners(ctx context.Context, cfg *config.Config, old map[string]*socket) (map[string]*socket, error) {
	out := make(map[string]*socket, len(cfg.Listeners))
	for _, c := range cfg.Listeners {
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
	o := old[c.Name]
	var err error
	switch {
	case c.TLS == nil:
	case o != nil && reflect.DeepEqual(o.cfg.TLS, c.TLS):
		s.certs, s.fresh = o.certs, o.fresh
	default:
		if s.certs, err = certs.New(*c.TLS, certs.Deps{Logger: a.logger}); err != nil {
			return nil, err
		}
		if o != nil && o.certs != nil {
			s.certs.Inherit(ctx, o.certs)
		}
		a.primeCerts(ctx, c.Name, s.certs)
	}
	if o != nil && o.keeps(c) {
		s.port, s.stop = o.port, o.stop
		return s, nil
	}
	s.port, err = a.openPort(ctx, c, old)
	return s, err
}

// primeCerts asks for the OCSP answers that are to be stapled and for the revocation lists
// before the first client comes.
func (a *App) primeCerts(ctx context.Context, listener string, store *certs.Store) {
	ctx, cancel := context.WithTimeout(ctx, primeTimeout)
	defer cancel()
	if err := store.Prime(ctx); err != nil {
		a.logger.WarnContext(ctx, "an OCSP answer for the server certificate or a revocation list is not there yet", slog.String("listener", listener), slog.Any("error", err))
	}
}

func (a *App) openPort(ctx context.Context, c config.Listener, old map[string]*socket) (*port, error) {
	l, err := a.listen(ctx, c.Address)
	if err != nil {
		for _, o := range old {
			if o.cfg.Address == c.Address {
				return nil, fmt.Errorf("%w; another name or other PROXY protocol settings for an address in use need a restart", err)
			}
		}
		return nil, err
	}
	if l, err = proxy.WithPROXY(l, c.ListenerConfig); err != nil {
		return nil, err
	}
	return &port{Listener: l}, nil
}

func (a *App) listen(ctx context.Context, address string) (net.Listener, error) {
	return new(net.ListenConfig).Listen(ctx, "tcp", address)
}

// tlsOptions tells which TLS settings belong to which host, by listener.
func tlsOptions(cfg *config.Config) map[string]*certs.Names {
	out := map[string]*certs.Names{}
	for _, l := range cfg.Listeners {
		if l.TLS != nil {
			out[l.Name] = certs.NewNames(*l.TLS)
		}
	}
	return out
}

// closeNew closes the ports of all that are not of old.
func closeNew(all, old map[string]*socket) error {
	var errs []error
	for name, s := range all {
		if o := old[name]; o == nil || o.port != s.port {
			errs = append(errs, s.port.Close())
		}
	}
	return errors.Join(errs...)
}

// serveSockets puts the TLS settings of g in force and serves the ports that are
// not served yet.
func (a *App) serveSockets(g *generation) {
	for name, s := range g.sockets {
		s.port.tls.Store(s.certs)
		if s.certs != nil && s.fresh == nil && s.certs.Renews() {
			s.fresh = a.crew.start("certificate status of listener "+name, s.certs.Run)
		}
		if s.stop == nil {
			s.stop = a.crew.start("listener "+name, func(ctx context.Context) error { return a.front.Serve(ctx, s.port, name) })
		}
	}
}
