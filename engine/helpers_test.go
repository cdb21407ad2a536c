package engine_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/open-policy-agent/opa/v1/storage"

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
