package app

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/metric"

	"github.com/sallyport/sallyport/engine/meter"
)

//go:generate go test -run ^TestMetricsPage$ . -update

var update = flag.Bool("update", false, "write the files that come from the code")

// registrations notes what is registered with a meter.
type registrations struct {
	metric.Meter
	rows map[string]string // Prometheus name to table row
}

func (r *registrations) add(name, kind, unit, about string) {
	full := strings.ReplaceAll(name, ".", "_")
	switch unit {
	case "s":
		full += "_seconds"
	case "By":
		full += "_bytes"
	}
	if kind == "counter" {
		full += "_total"
	}
	r.rows[full] = fmt.Sprintf("| `%s` | %s | %s |\n", full, kind, about)
}

func (r *registrations) Int64Counter(name string, o ...metric.Int64CounterOption) (metric.Int64Counter, error) {
	c := metric.NewInt64CounterConfig(o...)
	r.add(name, "counter", c.Unit(), c.Description())
	return r.Meter.Int64Counter(name, o...)
}

func (r *registrations) Int64UpDownCounter(name string, o ...metric.Int64UpDownCounterOption) (metric.Int64UpDownCounter, error) {
	c := metric.NewInt64UpDownCounterConfig(o...)
	r.add(name, "gauge", c.Unit(), c.Description())
	return r.Meter.Int64UpDownCounter(name, o...)
}

func (r *registrations) Float64Histogram(name string, o ...metric.Float64HistogramOption) (metric.Float64Histogram, error) {
	c := metric.NewFloat64HistogramConfig(o...)
	r.add(name, "histogram", c.Unit(), c.Description())
	return r.Meter.Float64Histogram(name, o...)
}

func (r *registrations) Int64ObservableGauge(name string, o ...metric.Int64ObservableGaugeOption) (metric.Int64ObservableGauge, error) {
	c := metric.NewInt64ObservableGaugeConfig(o...)
	r.add(name, "gauge", c.Unit(), c.Description())
	return r.Meter.Int64ObservableGauge(name, o...)
}

func (r *registrations) Float64ObservableGauge(name string, o ...metric.Float64ObservableGaugeOption) (metric.Float64ObservableGauge, error) {
	c := metric.NewFloat64ObservableGaugeConfig(o...)
	r.add(name, "gauge", c.Unit(), c.Description())
	return r.Meter.Float64ObservableGauge(name, o...)
}

// withOpaqueTokens adds an authenticator with metrics of its own to the file in dir.
func withOpaqueTokens(t *testing.T, dir string) {
	t.Helper()
	file := filepath.Join(dir, "sallyport.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const own = "authenticators:\n  opaque: {introspection: {url: \"https://idp.example/introspect\", client_id: gw, client_secret_file: secret}}\n"
	if !bytes.Contains(text, []byte("authenticators:\n")) {
		t.Fatal("the file has no authenticators")
	}
	text = bytes.Replace(text, []byte("authenticators:\n"), []byte(own), 1)
	if err := errors.Join(os.WriteFile(file, text, 0o600), os.WriteFile(filepath.Join(dir, "secret"), []byte("s3cret"), 0o600)); err != nil {
		t.Fatal(err)
	}
}

// TestMetricsPage holds the page of the metrics to what the gateway registers,
// and each metric to the naming rules.
func TestMetricsPage(t *testing.T) {
	r := &registrations{rows: map[string]string{}}
	dir := files(t)
	withOpaqueTokens(t, dir)
	addMechanisms(t, dir)
	a, err := New(t.Context(), Options{
		ConfigFile: filepath.Join(dir, "sallyport.yaml"), Stdout: io.Discard, Stderr: io.Discard,
		meter: func(m metric.Meter) metric.Meter { r.Meter = m; return r },
	})
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[meter.Kind]string{meter.KindCounter: "counter", meter.KindUpDown: "gauge", meter.KindHistogram: "histogram"}
	for _, m := range a.telemetry.Metrics.Snapshot() {
		r.add(m.Name, kinds[m.Kind], m.Unit, m.Description)
	}
	var b strings.Builder
	b.WriteString("# Metrics\n\nGenerated from the code by `make generate`. They stand on the admin listener's `/metrics` in the Prometheus format,\n" +
		"beside those of the Go runtime and the process, and go out over OTLP with dots for underscores when `telemetry.metrics` names a collector.\n\n" +
		"| metric | kind | meaning |\n|---|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(r.rows)) {
		if !strings.HasPrefix(name, "sallyport_") || strings.Contains(r.rows[name], "|  |") {
			t.Errorf("%s: has no prefix sallyport_ or no description", name)
		}
		b.WriteString(r.rows[name])
	}
	const file = "../../../../docs/reference/metrics.md"
	got, err := os.ReadFile(file)
	want := []byte(b.String())
	if *update && !bytes.Equal(got, want) {
		err = os.WriteFile(file, want, 0o644)
		got = want
	}
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s is not what the gateway registers (%v); run make generate", file, err)
	}
}

// addMechanisms adds to the configuration an authenticator of each kind that has
// metrics and that the demo does without.
func addMechanisms(t *testing.T, dir string) {
	t.Helper()
	file := filepath.Join(dir, "sallyport.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const begin = "authenticators:\n"
	if !strings.Contains(string(text), begin) {
		t.Fatalf("%s has no %q", file, begin)
	}
	added := strings.Replace(string(text), begin, begin+"  cluster: {kubernetes: {token_file: own-token, ca_file: \"\", audiences: [orders]}}\n"+
		"  machines: {client_credentials: {issuer: \"https://idp.example\", audiences: [orders]}}\n", 1)
	added += "identity_token: {issuer: \"https://gateway.example\"}\n" +
		"token_exchanges: {sts: {url: \"https://idp.example/token\", client_id: gw, client_secret_file: secret, audience: orders}}\n" +
		"client_credentials: {machine: {url: \"https://idp.example/token\", client_id: gw, client_secret_file: secret}}\n"
	for name, content := range map[string]string{"sallyport.yaml": added, "own-token": "token"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
