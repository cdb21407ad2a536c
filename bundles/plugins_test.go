package bundles_test

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/plugins"
	"github.com/open-policy-agent/opa/v1/plugins/logs"
	"github.com/open-policy-agent/opa/v1/server"
	"github.com/open-policy-agent/opa/v1/topdown/cache"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/sallyport/sallyport/bundles"
	"github.com/sallyport/sallyport/engine"
)

var fast = map[string]any{"min_delay_seconds": 0, "max_delay_seconds": 0}

func discoveryConfig(url string, key *keyPair) map[string]any {
	out := map[string]any{
		"services":  map[string]any{"bundler": map[string]any{"url": url}},
		"discovery": map[string]any{"resource": "bundles/discovery", "service": "bundler", "polling": fast},
	}
	if key != nil {
		out["keys"] = map[string]any{"release": map[string]any{"key": key.public, "algorithm": key.algorithm}}
		out["discovery"].(map[string]any)["signing"] = map[string]any{"keyid": "release"}
	}
	return out
}

func discoveryBundle(t *testing.T, config map[string]any) []string {
	t.Helper()
	raw, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	return []string{"data.json", string(raw)}
}

func TestDiscoveryNamesTheBundles(t *testing.T) {
	t.Parallel()
	key, e := newKey(t, "ES256"), newEngine(t)
	policy := build(t, key.signing("release"), "gateway.rego", saying("discovered"))
	shelf := newShelf(t, nil)
	var mu sync.Mutex
	var disco []byte
	publish := func(source map[string]any) {
		archive := signedRaw(t, key, discoveryBundle(t, map[string]any{"bundles": map[string]any{"policy": source}})...)
		mu.Lock()
		defer mu.Unlock()
		disco = archive
	}
	shelf.handle(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if strings.HasSuffix(r.URL.Path, "/discovery") {
			w.Header().Set("ETag", fmt.Sprintf(`"%d-%x"`, len(disco), disco[len(disco)-8:]))
			_, _ = w.Write(disco)
			return
		}
		w.Header().Set("ETag", `"p"`)
		_, _ = w.Write(policy)
	})
	publish(map[string]any{"service": "bundler", "polling": fast}) // unsigned would do
	s := newSource(t, bundles.Config{OPA: discoveryConfig(shelf.URL, &key)}, e)
	run(t, s)
	waitFor(t, s, "the refusal", func(st bundles.Status) bool {
		return strings.Contains(st.Bundles["discovery"].LastError, "signing.keyid")
	})
	if s.Status().Ready {
		t.Error("ready without a policy")
	}
	publish(map[string]any{"service": "bundler", "polling": fast, "signing": map[string]any{"keyid": "release"}})
	waitFor(t, s, "the discovered bundle", isReady)
	if got := reason(t, e); got != "discovered" {
		t.Errorf("decided %q, want discovered", got)
	}
	waitFor(t, s, "discovery to mend", func(st bundles.Status) bool { return st.Bundles["discovery"].LastError == "" })
	waitFor(t, s, "status of the bundle", func(st bundles.Status) bool { return !st.Bundles["policy"].LastRequest.IsZero() })

	archive := signedRaw(t, key, discoveryBundle(t, map[string]any{"bundles": map[string]any{}})...)
	mu.Lock()
	disco = archive
	mu.Unlock()
	waitFor(t, s, "the complaint", func(st bundles.Status) bool { return strings.Contains(st.Error, "no bundle is configured") })
	if got := reason(t, e); got != "discovered" {
		t.Errorf("decided %q, want that of the last policy", got)
	}
}

// collector is a service that takes what OPA's plugins report.
type collector struct {
	*httptest.Server
	mu   sync.Mutex
	seen map[string][]string // bodies by path
}

func newCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{seen: map[string][]string{}}
	c.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body := io.Reader(r.Body)
		if r.Header.Get("Content-Encoding") == "gzip" {
			zr, err := gzip.NewReader(r.Body)
			if err != nil {
				return
			}
			body = zr
		}
		raw, _ := io.ReadAll(body)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.seen[r.URL.Path] = append(c.seen[r.URL.Path], string(raw))
	}))
	t.Cleanup(c.Close)
	return c
}

func (c *collector) has(path, part string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, body := range c.seen[path] {
		if strings.Contains(body, part) {
			return true
		}
	}
	return false
}

func TestOPAReports(t *testing.T) {
	t.Parallel()
	shelf, c := newShelf(t, build(t, nil, "gateway.rego", saying("good"))), newCollector(t)
	cfg := opaConfig(shelf.URL, nil)
	cfg["services"].(map[string]any)["reports"] = map[string]any{"url": c.URL}
	cfg["status"] = map[string]any{"service": "reports"}
	cfg["decision_logs"] = map[string]any{"service": "reports", "reporting": map[string]any{"min_delay_seconds": 1, "max_delay_seconds": 1}}
	cfg["labels"] = map[string]any{"region": "eu"}
	var manager *plugins.Manager
	s, err := bundles.New(bundles.Config{OPA: cfg}, bundles.Deps{
		Engine: newEngine(t), OnManager: func(m *plugins.Manager) { manager = m },
	})
	if err != nil {
		t.Fatal(err)
	}
	run(t, s)
	waitFor(t, s, "the bundle", isReady)
	eventually(t, func() bool { return c.has("/status", `"region":"eu"`) && c.has("/status", `"active_revision"`) },
		func() string { return "no status report" })
	input := any(map[string]any{"who": "alice"})
	err = logs.Lookup(manager).Log(context.Background(), &server.Info{DecisionID: "d-1", Path: "gateway/decision", Input: &input, Timestamp: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return c.has("/logs", `"decision_id":"d-1"`) }, func() string { return "no decision log" })
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	reader := metric.NewManualReader()
	provider := metric.NewMeterProvider(metric.WithReader(reader))
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	dir := t.TempDir()
	write(t, dir, "gateway.rego", saying("good"))
	s, err := bundles.New(bundles.Config{Paths: []string{dir}}, bundles.Deps{
		Engine: newEngine(t), Meter: provider.Meter("test"), Now: func() time.Time { now = now.Add(time.Second); return now },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Reload(context.Background()); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "gateway.rego", "package gateway\n\ndecision := ")
	if err := s.Reload(context.Background()); err == nil {
		t.Fatal("a broken policy was accepted")
	}
	run(t, s)
	revision := s.Status().Revision
	eventually(t, func() bool {
		got := collect(t, reader)
		return got["sallyport.bundle.activations{bundle=paths}"] == 1 &&
			got["sallyport.bundle.errors{bundle=paths}"] == 1 &&
			got["sallyport.bundle.info{bundle=paths,revision="+revision+"}"] == 1 &&
			got["sallyport.bundle.age{bundle=paths}"] > 0
	}, func() string { return fmt.Sprint(collect(t, reader)) })
}

// collect returns the value of each series by name and labels.
func collect(t *testing.T, reader metric.Reader) map[string]float64 {
	t.Helper()
	var rm metricdata.ResourceMetrics
	if err := reader.Collect(context.Background(), &rm); err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, scope := range rm.ScopeMetrics {
		for _, m := range scope.Metrics {
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				points(out, m.Name, data.DataPoints)
			case metricdata.Gauge[int64]:
				points(out, m.Name, data.DataPoints)
			case metricdata.Gauge[float64]:
				points(out, m.Name, data.DataPoints)
			}
		}
	}
	return out
}

func points[N int64 | float64](out map[string]float64, name string, list []metricdata.DataPoint[N]) {
	for _, p := range list {
		var labels []string
		for _, kv := range p.Attributes.ToSlice() {
			labels = append(labels, string(kv.Key)+"="+kv.Value.String())
		}
		out[name+"{"+strings.Join(labels, ",")+"}"] = float64(p.Value)
	}
}

// cached notes what a real engine is told about its caches.
type cached struct {
	*engine.Engine
	mu   sync.Mutex
	size int64
}

func (c *cached) ConfigureCaches(cfg *cache.Config) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.size = *cfg.InterQueryBuiltinCache.MaxSizeBytes
	c.Engine.ConfigureCaches(cfg)
}

func TestCachingReachesTheEngine(t *testing.T) {
	t.Parallel()
	e := &cached{Engine: newEngine(t)}
	cfg := opaConfig(newShelf(t, build(t, nil, "gateway.rego", saying("good"))).URL, nil)
	cfg["caching"] = map[string]any{"inter_query_builtin_cache": map[string]any{"max_size_bytes": 1000}}
	s, err := bundles.New(bundles.Config{OPA: cfg}, bundles.Deps{Engine: e})
	if err != nil {
		t.Fatal(err)
	}
	run(t, s)
	waitFor(t, s, "the bundle", isReady)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.size != 1000 {
		t.Errorf("the engine's cache has %d bytes, want 1000", e.size)
	}
}
