package telemetry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc/credentials"
)

func traceExporter(ctx context.Context, cfg OTLP) (sdktrace.SpanExporter, error) {
	trust, err := cfg.tls()
	if err != nil {
		return nil, err
	}
	var exp sdktrace.SpanExporter
	if cfg.Protocol == "grpc" {
		opts := []otlptracegrpc.Option{otlptracegrpc.WithEndpointURL(cfg.Endpoint), otlptracegrpc.WithHeaders(cfg.Headers)}
		if trust != nil {
			opts = append(opts, otlptracegrpc.WithTLSCredentials(credentials.NewTLS(trust)))
		}
		exp, err = otlptracegrpc.New(ctx, opts...)
	} else {
		opts := []otlptracehttp.Option{otlptracehttp.WithEndpointURL(cfg.url("/v1/traces")), otlptracehttp.WithHeaders(cfg.Headers)}
		if trust != nil {
			opts = append(opts, otlptracehttp.WithTLSClientConfig(trust))
		}
		exp, err = otlptracehttp.New(ctx, opts...)
	}
	if err != nil {
		return nil, fmt.Errorf("build the trace exporter for %s: %w", cfg.Endpoint, err)
	}
	return exp, nil
}

func metricExporter(ctx context.Context, cfg OTLP) (sdkmetric.Exporter, error) {
	trust, err := cfg.tls()
	if err != nil {
		return nil, err
	}
	var exp sdkmetric.Exporter
	if cfg.Protocol == "grpc" {
		opts := []otlpmetricgrpc.Option{otlpmetricgrpc.WithEndpointURL(cfg.Endpoint), otlpmetricgrpc.WithHeaders(cfg.Headers)}
		if trust != nil {
			opts = append(opts, otlpmetricgrpc.WithTLSCredentials(credentials.NewTLS(trust)))
		}
		exp, err = otlpmetricgrpc.New(ctx, opts...)
	} else {
		opts := []otlpmetrichttp.Option{otlpmetrichttp.WithEndpointURL(cfg.url("/v1/metrics")), otlpmetrichttp.WithHeaders(cfg.Headers)}
		if trust != nil {
			opts = append(opts, otlpmetrichttp.WithTLSClientConfig(trust))
		}
		exp, err = otlpmetrichttp.New(ctx, opts...)
	}
	if err != nil {
		return nil, fmt.Errorf("build the metric exporter for %s: %w", cfg.Endpoint, err)
	}
	return exp, nil
}

// url adds the signal's path to an endpoint without one (OTLP specification,
// "Endpoint URLs for OTLP/HTTP").
func (o OTLP) url(path string) string {
	u, err := url.Parse(o.Endpoint)
	if err != nil || (u.Path != "" && u.Path != "/") {
		return o.Endpoint
	}
	u.Path = path
	return u.String()
}

func (o OTLP) tls() (*tls.Config, error) {
	if o.CAFile == "" {
		return nil, nil // no configuration is the exporter's own default, the system's authorities
	}
	pem, err := os.ReadFile(o.CAFile)
	if err != nil {
		return nil, fmt.Errorf("read the collector's authorities: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no PEM certificate", o.CAFile)
	}
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, nil
}

// reportErrors sends export errors to the log, at most one in ten seconds: a
// collector that is down must not fill the log.
func reportErrors(logger *slog.Logger) {
	var mu sync.Mutex
	var last time.Time
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		mu.Lock()
		defer mu.Unlock()
		if time.Since(last) < 10*time.Second {
			return
		}
		last = time.Now()
		logger.Warn("telemetry is not delivered", slog.Any("error", err))
	}))
}
