package bundles

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// pathsBundle is the name that policies from files go by, where bundles have one.
const pathsBundle = "paths"

// Status is what the admin listener shows about policies.
type Status struct {
	Ready    bool                    `json:"ready"` // every bundle has been active once
	Revision string                  `json:"revision,omitempty"`
	Since    time.Time               `json:"since,omitzero"` // when the revision became active
	Error    string                  `json:"error,omitempty"`
	ErrorAt  time.Time               `json:"error_at,omitzero"`
	Bundles  map[string]BundleStatus `json:"bundles,omitempty"`
}

// BundleStatus is the state of one bundle. An error tells why what is active is
// not the newest; it is empty again once the newest is active.
type BundleStatus struct {
	Revision               string    `json:"revision,omitempty"`
	ActivatedAt            time.Time `json:"activated_at,omitzero"`
	LastRequest            time.Time `json:"last_request,omitzero"`
	LastSuccessfulRequest  time.Time `json:"last_successful_request,omitzero"`
	LastSuccessfulDownload time.Time `json:"last_successful_download,omitzero"`
	Size                   int       `json:"size,omitempty"` // bytes of the archive
	LastError              string    `json:"last_error,omitempty"`
}

// journal keeps the status of a source, and counts.
type journal struct {
	now         func() time.Time
	activations metric.Int64Counter
	errors      metric.Int64Counter
	info        metric.Int64ObservableGauge
	age         metric.Float64ObservableGauge
	contact     metric.Float64ObservableGauge
	meter       metric.Meter

	mu     sync.Mutex
	status Status
	whole  bool // the error is about the policy as a whole: only an activation mends it
}

func newJournal(deps Deps) (*journal, error) {
	j := &journal{now: deps.Now, meter: deps.Meter, status: Status{Bundles: map[string]BundleStatus{}}}
	var errs [5]error
	j.activations, errs[0] = deps.Meter.Int64Counter("sallyport.bundle.activations",
		metric.WithDescription("Policy revisions that became active, by bundle."))
	j.errors, errs[1] = deps.Meter.Int64Counter("sallyport.bundle.errors",
		metric.WithDescription("Bundles that could not be had or activated; the last good policy stays in force."))
	j.info, errs[2] = deps.Meter.Int64ObservableGauge("sallyport.bundle.info",
		metric.WithDescription("Always 1, with the active revision of the bundle as a label."))
	j.age, errs[3] = deps.Meter.Float64ObservableGauge("sallyport.bundle.age", metric.WithUnit("s"),
		metric.WithDescription("Time since the bundle was activated."))
	j.contact, errs[4] = deps.Meter.Float64ObservableGauge("sallyport.bundle.contact.age", metric.WithUnit("s"),
		metric.WithDescription("Time since the bundle service last answered."))
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("create metrics of bundles: %w", err)
	}
	return j, nil
}

// observe reports ages until the returned function is called.
func (j *journal) observe() (stop func(), err error) {
	reg, err := j.meter.RegisterCallback(j.report, j.info, j.age, j.contact)
	if err != nil {
		return nil, fmt.Errorf("register metrics of bundles: %w", err)
	}
	return func() { _ = reg.Unregister() }, nil // it fails only if it was not registered
}

func (j *journal) report(_ context.Context, o metric.Observer) error {
	now := j.now()
	for name, b := range j.Status().Bundles {
		attr := metric.WithAttributes(attribute.String("bundle", name))
		if !b.ActivatedAt.IsZero() {
			o.ObserveInt64(j.info, 1, attr, metric.WithAttributes(attribute.String("revision", b.Revision)))
			o.ObserveFloat64(j.age, now.Sub(b.ActivatedAt).Seconds(), attr)
		}
		if !b.LastSuccessfulRequest.IsZero() {
			o.ObserveFloat64(j.contact, now.Sub(b.LastSuccessfulRequest).Seconds(), attr)
		}
	}
	return nil
}

// Status returns a copy.
func (j *journal) Status() Status {
	j.mu.Lock()
	defer j.mu.Unlock()
	out := j.status
	out.Bundles = maps.Clone(j.status.Bundles)
	return out
}

// activated notes that revision id, made of these bundles, is live.
func (j *journal) activated(ctx context.Context, id string, revisions map[string]string) {
	now := j.now()
	j.mu.Lock()
	j.status.Ready = true
	j.status.Revision, j.status.Since = id, now
	var changed []string
	for name, rev := range revisions {
		b, known := j.status.Bundles[name]
		if !known || b.Revision != rev || b.ActivatedAt.IsZero() {
			b.ActivatedAt = now
			changed = append(changed, name)
		}
		b.Revision = rev
		j.status.Bundles[name] = b
	}
	j.whole = false
	j.clear()
	j.mu.Unlock()
	for _, name := range changed {
		j.activations.Add(ctx, 1, metric.WithAttributes(attribute.String("bundle", name)))
	}
}

// failed notes why a bundle is not what it should be; name is empty when it is
// about none in particular.
func (j *journal) failed(ctx context.Context, name string, err error) {
	j.mu.Lock()
	if name == "" || !j.whole {
		j.status.Error, j.status.ErrorAt = err.Error(), j.now()
	}
	j.whole = j.whole || name == ""
	if name != "" {
		b := j.status.Bundles[name]
		b.LastError = err.Error()
		j.status.Bundles[name] = b
	}
	j.mu.Unlock()
	j.errors.Add(ctx, 1, metric.WithAttributes(attribute.String("bundle", name)))
}

// recovered notes that a bundle is what it should be.
func (j *journal) recovered(name string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	b := j.status.Bundles[name]
	b.LastError = ""
	j.status.Bundles[name] = b
	j.clear()
}

// clear drops the error of the whole once no bundle has one.
func (j *journal) clear() {
	if j.whole {
		return
	}
	for _, b := range j.status.Bundles {
		if b.LastError != "" {
			return
		}
	}
	j.status.Error, j.status.ErrorAt = "", time.Time{}
}

// retain forgets the bundles that are not named, and their errors.
func (j *journal) retain(names []string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	maps.DeleteFunc(j.status.Bundles, func(name string, _ BundleStatus) bool {
		return !slices.Contains(names, name)
	})
	j.clear()
}

// update changes what is known about one bundle.
func (j *journal) update(name string, change func(*BundleStatus)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	b := j.status.Bundles[name]
	change(&b)
	j.status.Bundles[name] = b
}
