package telemetry

import (
	"errors"
	"log/slog"
	"net/url"
	"time"

	"github.com/sallyport/sallyport/engine/setting"
)

// Config says where logs, metrics and traces go.
type Config struct {
	// Log is the operator's log on standard error. The decision log is separate.
	Log Log `yaml:"log"`
	// Traces sends OpenTelemetry traces over OTLP. Off without an endpoint.
	Traces Traces `yaml:"traces"`
	// Metrics sends metrics over OTLP, beside the Prometheus page that the admin
	// listener always has. Off without an endpoint.
	Metrics Metrics `yaml:"metrics"`
}

// Log is the operator's log.
type Log struct {
	// Level is the least severity that is written: DEBUG, INFO, WARN or ERROR.
	Level slog.Level `yaml:"level"`
	// Format is json or text.
	Format string `yaml:"format" jsonschema:"enum=json,enum=text"`
}

// OTLP is an OpenTelemetry collector.
type OTLP struct {
	// Endpoint is the collector's URL, such as http://127.0.0.1:4318. With
	// protocol http the signal's path (/v1/traces, /v1/metrics) is added when the
	// URL has none.
	Endpoint string `yaml:"endpoint"`
	// Protocol is http (protobuf over HTTP, port 4318 by custom) or grpc (4317).
	Protocol string `yaml:"protocol" jsonschema:"enum=http,enum=grpc"`
	// CAFile is a PEM file of authorities to verify the collector with, instead
	// of the system's.
	CAFile string `yaml:"ca_file" sallyport:"path"`
	// Headers are sent with each export; take values of secrets from ${ENV}.
	Headers map[string]string `yaml:"headers"`
}

// Traces are OpenTelemetry spans: one a request, with children for
// authentication, decision and upstream.
type Traces struct {
	OTLP `yaml:",inline"`
	// SampleRatio is the share of requests traced, 0 to 1, when the caller's
	// trace context does not say. A sampled caller is always followed.
	SampleRatio float64 `yaml:"sample_ratio"`
}

// Metrics are OpenTelemetry metrics.
type Metrics struct {
	OTLP `yaml:",inline"`
	// Interval is the time between exports.
	Interval time.Duration `yaml:"interval"`
}

// Default returns the configuration of an absent telemetry section.
func Default() Config {
	return Config{
		Log:     Log{Format: "json"},
		Traces:  Traces{OTLP: OTLP{Protocol: "http"}, SampleRatio: 1},
		Metrics: Metrics{OTLP: OTLP{Protocol: "http"}, Interval: time.Minute},
	}
}

// Validate reports every key with a value that cannot work.
func (c Config) Validate() error {
	var errs []error
	if c.Log.Format != "json" && c.Log.Format != "text" {
		errs = append(errs, setting.Problemf("log.format", "%q is neither json nor text", c.Log.Format))
	}
	errs = append(errs, setting.Under("traces", c.Traces.validate()), setting.Under("metrics", c.Metrics.validate()))
	if c.Traces.SampleRatio < 0 || c.Traces.SampleRatio > 1 {
		errs = append(errs, setting.Problemf("traces.sample_ratio", "%v is not between 0 and 1", c.Traces.SampleRatio))
	}
	if c.Metrics.Interval < time.Second {
		errs = append(errs, setting.Problemf("metrics.interval", "%v is below 1s", c.Metrics.Interval))
	}
	return errors.Join(errs...)
}

func (o OTLP) validate() error {
	var errs []error
	if o.Protocol != "http" && o.Protocol != "grpc" {
		errs = append(errs, setting.Problemf("protocol", "%q is neither http nor grpc", o.Protocol))
	}
	if u, err := url.Parse(o.Endpoint); o.Endpoint != "" &&
		(err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https")) {
		errs = append(errs, setting.Problemf("endpoint", "%q is not a URL such as http://127.0.0.1:4318", o.Endpoint))
	}
	return errors.Join(errs...)
}
