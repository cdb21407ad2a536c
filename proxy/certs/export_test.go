package certs

import (
	"context"
	"errors"
)

// RefreshLists fetches every list now, as Run does in its time.
func (s *Store) RefreshLists(ctx context.Context) error {
	var errs []error
	for _, u := range s.urls() {
		errs = append(errs, s.refreshList(ctx, u))
	}
	return errors.Join(errs...)
}
