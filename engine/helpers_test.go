package engine_test

import (
	"context"

	"github.com/open-policy-agent/opa/v1/storage"

	"github.com/sallyport/sallyport/engine/store"
)

func writeOne(ctx context.Context, s *store.Store, path string, value any) error {
	return storage.WriteOne(ctx, s, storage.AddOp, storage.MustParsePath(path), value)
}
