package signedheader

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"

	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/asking"
	"github.com/sallyport/sallyport/proxy/authn/fetch"
	"github.com/sallyport/sallyport/proxy/authn/limit"
)

const (
	maxPEM       = 8 << 10 // bytes
	maxPEMKeys   = 64
	fetchTimeout = 5 * time.Second
	// freshFor is how long a key is used before it is asked for again. It does not
	// change, but it may be taken back.
	freshFor = time.Hour
	// absentFor is how long a key that is not there causes no further fetch.
	absentFor = 10 * time.Second
	// Keys that are not known are fetched a few at once for one client, and then one per
	// interval: who makes kids up keeps nobody else from a new key. However many clients
	// there are, there is an end too.
	demandBurst    = 5
	demandInterval = 10 * time.Second
	demandOfAll    = 64 // at once, and then one per second
)

// pemKeys are public keys that are published one by one, each under its own URL.
type pemKeys struct {
	client  *fetch.Client
	now     func() time.Time
	logger  *slog.Logger
	keys    *lru.Cache[string, pemKey] // by URL
	absent  *lru.Cache[string, pemKey] // apart, so that made-up ones push no key out
	demand  *rate.Limiter              // of all clients
	asking  *limit.Limiter             // of each
	flights asking.Flights[*ecdsa.PublicKey]
}

// pemKey is a key, or nil for one that is not there, until when that is believed.
type pemKey struct {
	key   *ecdsa.PublicKey
	until time.Time
}

func newPEMKeys(c Config, deps Deps) (*pemKeys, error) {
	k := &pemKeys{now: deps.Now, logger: deps.Logger, demand: rate.NewLimiter(rate.Every(time.Second), demandOfAll)}
	if k.now == nil {
		k.now = time.Now
	}
	if k.logger == nil {
		k.logger = slog.New(slog.DiscardHandler)
	}
	var err error
	if k.keys, err = lru.New[string, pemKey](maxPEMKeys); err != nil {
		return nil, err
	}
	if k.absent, err = lru.New[string, pemKey](maxPEMKeys); err != nil {
		return nil, err
	}
	each := limit.Default()
	each.Failures, each.Burst = setting.Rate(1/demandInterval.Seconds()), demandBurst
	if k.asking, err = limit.New(each); err != nil {
		return nil, err
	}
	k.client, err = fetch.New(fetch.Config{Whose: "the load balancer's keys", CAFile: c.CAFile, Connections: 2})
	return k, err
}

// get returns the key under url, which a client has named. The error is authn.ErrInvalid if there is none and
// authn.ErrUnavailable if that cannot be found out now.
func (k *pemKeys) get(ctx context.Context, client, url string) (*ecdsa.PublicKey, error) {
	known, have := k.keys.Get(url)
	if have && k.now().Before(known.until) {
		return known.key, nil
	}
	if a, ok := k.absent.Get(url); ok && k.now().Before(a.until) {
		return nil, errAbsent
	}
	if !have && k.asking.Allow(client, k.now()) != nil {
		return nil, errTooMany
	}
	client = strings.Clone(client) // the question may outlive the request
	key, err := k.flights.Ask(ctx, url, fetchTimeout, func(ctx context.Context) (*ecdsa.PublicKey, error) {
		return k.fetch(ctx, client, url, known.key)
	})
	if have && errors.Is(err, authn.ErrUnavailable) {
		return known.key, nil
	}
	return key, err
}

var errTooMany = fmt.Errorf("%w: too many unknown keys were asked for", authn.ErrUnavailable)

var errAbsent = fmt.Errorf("%w: there is no key of this kid", authn.ErrInvalid)

// fetch gets a key. One that is known is asked for again whatever else is.
func (k *pemKeys) fetch(ctx context.Context, client, url string, known *ecdsa.PublicKey) (*ecdsa.PublicKey, error) {
	if known == nil {
		k.asking.Charge(client, k.now())
		if !k.demand.AllowN(k.now(), 1) {
			return nil, errTooMany
		}
	}
	key, err := k.load(ctx, url)
	switch {
	case err == nil:
		k.keys.Add(url, pemKey{key, k.now().Add(freshFor)})
		return key, nil
	case errors.Is(err, errAbsent):
		k.keys.Remove(url)
		k.absent.Add(url, pemKey{nil, k.now().Add(absentFor)})
		return nil, err
	}
	k.logger.WarnContext(ctx, "key was not fetched", slog.String("url", url), slog.Any("error", err), slog.Bool("have_key", known != nil))
	if known != nil {
		k.keys.Add(url, pemKey{known, k.now().Add(absentFor)}) // not again for every request
	}
	return nil, fmt.Errorf("%w: fetch key: %w", authn.ErrUnavailable, err)
}

func (k *pemKeys) load(ctx context.Context, url string) (*ecdsa.PublicKey, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := k.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // nothing is written; a read error shows below
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound, http.StatusForbidden: // S3 says the latter of what is not there
		return nil, errAbsent
	default:
		return nil, fmt.Errorf("%s answered %s", url, resp.Status)
	}
	text, err := fetch.Read(resp.Body, maxPEM, url)
	if err != nil {
		return nil, err
	}
	return parsePEM(text)
}

func parsePEM(text []byte) (*ecdsa.PublicKey, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PUBLIC KEY" {
		return nil, errors.New("answer is not a public key in PEM")
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	key, ok := parsed.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("answer is not a public key of the curve P-256")
	}
	return key, nil
}
