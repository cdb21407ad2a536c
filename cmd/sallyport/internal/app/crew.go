package app

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// crew runs the long-lived parts of the process. Parts come and go with reloads;
// one that ends by itself ends the process, since nobody would do its work.
type crew struct {
	ctx  context.Context
	fail context.CancelCauseFunc
	wg   sync.WaitGroup
}

func newCrew(ctx context.Context) *crew {
	ctx, fail := context.WithCancelCause(ctx)
	return &crew{ctx: ctx, fail: fail}
}

// start runs a part until stop is called, which waits for it to end.
func (c *crew) start(name string, run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(c.ctx)
	done := make(chan struct{})
	c.wg.Go(func() {
		defer close(done)
		err := run(ctx)
		if ctx.Err() != nil {
			return // it was asked to end
		}
		if err == nil {
			err = errors.New("ended by itself")
		}
		c.fail(fmt.Errorf("%s: %w", name, err))
	})
	return func() {
		cancel()
		<-done
	}
}

// wait ends what is left and returns why the first part failed, if one did.
func (c *crew) wait(parent context.Context) error {
	cause := context.Cause(c.ctx)
	c.fail(nil)
	c.wg.Wait()
	if parent.Err() != nil || errors.Is(cause, context.Canceled) {
		return nil //nolint:nilerr // the process was asked to end
	}
	return cause
}
