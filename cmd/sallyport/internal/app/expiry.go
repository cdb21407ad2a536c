package app

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// registerExpiry has metrics tell when what listeners need to be trusted, and to trust,
// ends. It is a moment and not a remainder, so that an alert need not know how old the
// number is.
func (a *App) registerExpiry(m metric.Meter) error {
	certificate, err := m.Int64ObservableGauge("sallyport.tls.certificate.not_after", metric.WithUnit("s"),
		metric.WithDescription("When the first of the certificates that a listener shows ends, in Unix time, by listener."))
	list, listErr := m.Int64ObservableGauge("sallyport.tls.revocation_list.next_update", metric.WithUnit("s"),
		metric.WithDescription("When the first of a listener's revocation lists ends, in Unix time, by listener. From then on clients of its authority are refused, or pass with crl.mode soft. 0 while a list that is to be fetched is missing."))
	if err := errors.Join(err, listErr); err != nil {
		return fmt.Errorf("register metrics of certificates: %w", err)
	}
	_, err = m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		g := a.current.Load()
		if g == nil {
			return nil // not built yet
		}
		for name, s := range g.sockets {
			if s.certs == nil {
				continue
			}
			by := metric.WithAttributes(attribute.String("listener", name))
			observe := func(gauge metric.Int64Observable, end time.Time) {
				if !end.IsZero() {
					o.ObserveInt64(gauge, end.Unix(), by)
				}
			}
			observe(certificate, s.certs.NotAfter())
			observe(list, s.certs.ListsUntil())
		}
		return nil
	}, certificate, list)
	if err != nil {
		return fmt.Errorf("register metrics of certificates: %w", err)
	}
	return nil
}
