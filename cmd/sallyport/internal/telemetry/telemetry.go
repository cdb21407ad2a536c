// Package telemetry builds what the gateway is seen through from outside: the
// logger, the meter provider behind both the Prometheus page and OTLP, and the
// tracer provider. It is the only package that imports the OpenTelemetry SDK;
// all others take the API's interfaces, or count with package meter.
//
// Standard output belongs to the decision log; everything of this package goes
// to standard error or over the network.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	promexporter "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/sallyport/sallyport/engine/meter"
)

// Scope is the instrumentation scope of everything that the gateway emits.
const Scope = "github.com/sallyport/sallyport"

// Providers are the built providers. Shutdown flushes and closes them.
type Providers struct {
	// Metrics are for the path of a request, Meter for what happens rarely. Both
	// stand on the same page and go to the same collector.
	Metrics *meter.Registry
	Meter   metric.Meter
	Tracer  trace.Tracer
	// Tracing tells whether spans go anywhere; without it the tracer is a no-op
	// and costs nothing.
	Tracing bool

	registry *prometheus.Registry
	closers  []func(context.Context) error
}

// New builds the providers. It opens no port; OTLP exporters connect lazily, so
// a collector that is down neither stops the start nor a request.
func New(ctx context.Context, cfg Config, name, version string, logger *slog.Logger) (*Providers, error) {
	res := resource.NewSchemaless(
		semconv.ServiceName(name),
		semconv.ServiceVersion(version),
	)
	if env, err := resource.New(ctx, resource.WithFromEnv()); err == nil {
		if merged, err := resource.Merge(res, env); err == nil {
			res = merged
		}
	}
	p := &Providers{Metrics: meter.New(), registry: prometheus.NewRegistry()}
	p.registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	if err := p.meter(ctx, cfg.Metrics, res); err != nil {
		return nil, err
	}
	if err := p.tracer(ctx, cfg.Traces, res); err != nil {
		return nil, errors.Join(err, p.Shutdown(ctx))
	}
	reportErrors(logger)
	return p, nil
}

func (p *Providers) meter(ctx context.Context, cfg Metrics, res *resource.Resource) error {
	own := producer{p.Metrics}
	prom, err := promexporter.New(
		promexporter.WithRegisterer(p.registry),
		promexporter.WithoutScopeInfo(),
		promexporter.WithProducer(own),
	)
	if err != nil {
		return fmt.Errorf("build the Prometheus exporter: %w", err)
	}
	opts := []sdkmetric.Option{
		sdkmetric.WithResource(res),
		sdkmetric.WithReader(prom),
		// The SDK's own bounds are for milliseconds.
		sdkmetric.WithView(sdkmetric.NewView(
			sdkmetric.Instrument{Unit: "s", Kind: sdkmetric.InstrumentKindHistogram},
			sdkmetric.Stream{Aggregation: sdkmetric.AggregationExplicitBucketHistogram{Boundaries: seconds(meter.Bounds())}},
		)),
	}
	if cfg.Endpoint != "" {
		exp, err := metricExporter(ctx, cfg.OTLP)
		if err != nil {
			return err
		}
		opts = append(opts, sdkmetric.WithReader(sdkmetric.NewPeriodicReader(exp, sdkmetric.WithInterval(cfg.Interval), sdkmetric.WithProducer(own))))
	}
	mp := sdkmetric.NewMeterProvider(opts...)
	p.Meter = mp.Meter(Scope)
	p.closers = append(p.closers, mp.Shutdown)
	return nil
}

func (p *Providers) tracer(ctx context.Context, cfg Traces, res *resource.Resource) error {
	if cfg.Endpoint == "" {
		p.Tracer = noop.NewTracerProvider().Tracer(Scope)
		return nil
	}
	exp, err := traceExporter(ctx, cfg.OTLP)
	if err != nil {
		return err
	}
	tp := sdktrace.NewTracerProvider(
		sdktrace.WithResource(res),
		sdktrace.WithBatcher(exp),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(cfg.SampleRatio))),
	)
	p.Tracer, p.Tracing = tp.Tracer(Scope), true
	p.closers = append(p.closers, tp.Shutdown)
	return nil
}

// Handler serves the Prometheus page.
func (p *Providers) Handler() http.Handler {
	return promhttp.HandlerFor(p.registry, promhttp.HandlerOpts{EnableOpenMetrics: true})
}

// Registerer is for libraries that bring Prometheus collectors of their own.
func (p *Providers) Registerer() prometheus.Registerer { return p.registry }

// Shutdown flushes what was not sent yet and closes the exporters.
func (p *Providers) Shutdown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var errs []error
	for _, c := range p.closers {
		errs = append(errs, c(ctx))
	}
	return errors.Join(errs...)
}

// NewLogger returns the operator's log.
func NewLogger(cfg Log, w io.Writer) *slog.Logger {
	opts := &slog.HandlerOptions{Level: cfg.Level}
	if cfg.Format == "text" {
		return slog.New(slog.NewTextHandler(w, opts))
	}
	return slog.New(slog.NewJSONHandler(w, opts))
}
