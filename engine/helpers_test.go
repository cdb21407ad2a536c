package engine_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/open-policy-agent/opa/v1/storage"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/sallyport/sallyport/engine/store"
)

func writeOne(ctx context.Context, s *store.Store, path string, value any) error {
	return storage.WriteOne(ctx, s, storage.AddOp, storage.MustParsePath(path), value)
}

// server counts the requests it gets.
type server struct {
	*httptest.Server
	calls atomic.Int64
}

func newServer(t *testing.T) *server {
	t.Helper()
	s := &server{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s.calls.Add(1)
		w.Header().Set("Connection", "close")
	}))
	t.Cleanup(s.Close)
	return s
}

// counts returns what the instruments counted, by name and attributes.
func counts(t *testing.T, reader *metric.ManualReader) map[string]int64 {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	out := map[string]int64{}
	encoder := attribute.DefaultEncoder()
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				for _, p := range data.DataPoints {
					out[m.Name+" "+p.Attributes.Encoded(encoder)] = p.Value
				}
			case metricdata.Histogram[float64]:
				for _, p := range data.DataPoints {
					out[m.Name+" "+p.Attributes.Encoded(encoder)] = int64(p.Count)
				}
			}
		}
	}
	return out
}
