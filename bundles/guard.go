package bundles

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/open-policy-agent/opa/v1/tracing"
)

// minGap is the least time between two requests for one bundle. OPA asks again at
// once when a service that offers long polling answers at once, which a service
// that is broken does for ever.
const minGap = 250 * time.Millisecond

// maxDownload is the longest that one answer may take to arrive. OPA would wait
// for ever for a service that sends a byte now and then, and get no policy of
// another replica of it meanwhile.
const maxDownload = 5 * time.Minute

// guard stands between OPA's downloaders and the network. OPA limits each file of
// a bundle, not the whole; reads no checksum; activates the same bundle again and
// again if its tag changes. The guard refuses the first two and hides the third.
type guard struct {
	mu         sync.Mutex
	limits     map[string]int64 // by the end of the URL's path
	delivered  map[string]delivery
	asked      map[string]time.Time
	transports []http.RoundTripper
	patience   time.Duration // maxDownload but in tests
}

// delivery is the content that OPA got under a tag.
type delivery struct {
	etag   string
	digest [sha256.Size]byte
}

func newGuard(bundles map[string]any) *guard {
	g := &guard{limits: map[string]int64{}, delivered: map[string]delivery{}, asked: map[string]time.Time{}, patience: maxDownload}
	g.learn(bundles)
	return g
}

// learn takes the size limits from the configuration of bundles.
func (g *guard) learn(bundles map[string]any) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for name, v := range bundles {
		source := object(v)
		resource, _ := source["resource"].(string)
		if resource == "" {
			resource = "bundles/" + name
		}
		if limit, ok := toInt64(source["size_limit_bytes"]); ok && limit > 0 {
			g.limits["/"+strings.Trim(resource, "/")] = limit
		}
	}
}

func toInt64(v any) (int64, bool) {
	switch n := v.(type) {
	case int:
		return int64(n), true
	case int64:
		return n, true
	case uint64:
		return int64(min(n, 1<<62)), true
	case float64:
		return int64(n), true
	}
	return 0, false
}

// limit is the limit of the bundle that the path is for, or the default.
func (g *guard) limit(path string) int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	best, out := "", int64(defaultMaxBundle)
	for suffix, limit := range g.limits {
		if strings.HasSuffix(path, suffix) && len(suffix) > len(best) {
			best, out = suffix, limit
		}
	}
	return out
}

// options make OPA hand its transports to the guard. The one hook that OPA has
// there is meant for tracing; it is process-wide, and which guard is meant
// travels in the options.
func (g *guard) options() tracing.Options {
	hookTransports()
	return tracing.NewOptions(g)
}

// hookTransports is process-wide because OPA's hook is.
var hookTransports = sync.OnceFunc(func() { tracing.RegisterHTTPTracing(transportHook{}) })

type transportHook struct{}

func (transportHook) NewTransport(rt http.RoundTripper, opts tracing.Options) http.RoundTripper {
	for _, o := range opts {
		if g, ok := o.(*guard); ok {
			return g.wrap(rt)
		}
	}
	return rt
}

func (transportHook) NewHandler(h http.Handler, _ string, _ tracing.Options) http.Handler { return h }

func (g *guard) wrap(rt http.RoundTripper) http.RoundTripper {
	if rt == nil {
		rt = http.DefaultTransport
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.transports = append(g.transports, rt)
	return &guarded{guard: g, next: rt}
}

// close lets go of connections that are kept for the next request.
func (g *guard) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, rt := range g.transports {
		if c, ok := rt.(interface{ CloseIdleConnections() }); ok {
			c.CloseIdleConnections()
		}
	}
}

type guarded struct {
	guard *guard
	next  http.RoundTripper
}

// RoundTrip passes everything but downloads, which are checked as a whole before
// OPA sees them.
func (t *guarded) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method != http.MethodGet {
		return t.next.RoundTrip(req)
	}
	if err := t.guard.pace(req.Context(), req.URL.String()); err != nil {
		return nil, err
	}
	resp, err := t.next.RoundTrip(req)
	if err != nil || resp.StatusCode != http.StatusOK {
		return resp, err
	}
	defer resp.Body.Close()                                                    //nolint:errcheck // read to its end or given up
	late := time.AfterFunc(t.guard.patience, func() { _ = resp.Body.Close() }) // ends the read with an error
	defer late.Stop()
	body, err := readArchiveBody(resp.Body, t.guard.limit(req.URL.Path))
	if err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(givingWay{bytes.NewReader(body)})
	if etag, ok := t.guard.repeated(req, resp, body); ok {
		resp.StatusCode, resp.Status = http.StatusNotModified, "304 Not Modified"
		resp.Header.Set("ETag", etag)
		resp.Body = http.NoBody
	}
	return resp, nil
}

func readArchiveBody(r io.Reader, limit int64) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read bundle: %w", err)
	}
	if int64(len(body)) > limit {
		return nil, fmt.Errorf("%w of %d bytes", errTooLarge, limit)
	}
	if bytes.HasPrefix(body, []byte{0x1f, 0x8b}) { // what is not gzip is OPA's to refuse, or an OCI manifest
		if err := checkArchive(body, limit); err != nil {
			return nil, err
		}
	}
	return body, nil
}

// pace waits until the bundle may be asked for again.
func (g *guard) pace(ctx context.Context, url string) error {
	g.mu.Lock()
	now := time.Now()
	next := g.asked[url].Add(minGap)
	if next.Before(now) {
		next = now
	}
	g.asked[url] = next
	g.mu.Unlock()
	if next.Equal(now) {
		return nil
	}
	timer := time.NewTimer(next.Sub(now))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// repeated reports whether the body is what OPA got before under the tag that it
// sends now, and returns that tag. OPA sends a tag only of a bundle that it
// activated, so a bundle that failed is not hidden from it.
func (g *guard) repeated(req *http.Request, resp *http.Response, body []byte) (string, bool) {
	url, digest := req.URL.String(), sha256.Sum256(body)
	asked, _, _ := strings.Cut(req.Header.Get("If-None-Match"), ",")
	g.mu.Lock()
	defer g.mu.Unlock()
	d := g.delivered[url]
	if asked != "" && asked == d.etag && digest == d.digest {
		return d.etag, true
	}
	g.delivered[url] = delivery{etag: resp.Header.Get("ETag"), digest: digest}
	return "", false
}
