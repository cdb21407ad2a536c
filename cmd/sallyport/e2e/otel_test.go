//go:build e2e

package e2e_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// collector runs a real OpenTelemetry Collector and returns its OTLP endpoint,
// gRPC or HTTP, and what it prints of what it understood.
func collector(t *testing.T, protocol string) (endpoint string, seen *output) {
	t.Helper()
	bin, err := filepath.Abs("../../../.bin/otelcol")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(bin); err != nil {
		t.Fatalf("%v; run make .bin/otelcol", err)
	}
	address := freeAddress(t)
	file := filepath.Join(t.TempDir(), "otelcol.yaml")
	write(t, file, fmt.Sprintf(`receivers: {otlp: {protocols: {%s: {endpoint: %s}}}}
exporters: {debug: {verbosity: detailed}}
service:
  telemetry: {metrics: {level: none}}
  pipelines:
    traces: {receivers: [otlp], exporters: [debug]}
    metrics: {receivers: [otlp], exporters: [debug]}
`, protocol, address))
	seen = &output{}
	cmd := exec.Command(bin, "--config", "file:"+file)
	cmd.Stdout, cmd.Stderr = seen, seen
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		_ = cmd.Wait()                          // how it ends is not the test's subject
		if t.Failed() {
			t.Logf("collector:\n%s", seen)
		}
	})
	eventually(t, 10*time.Second, "collector is ready", func() bool { return strings.Contains(seen.String(), "Everything is ready") })
	return "http://" + address, seen
}

const (
	sampledTrace   = "0af7651916cd43dd8448eb211c80319c"
	unsampledTrace = "1af7651916cd43dd8448eb211c80319c"
	callerSpan     = "b7ad6b7169203331"
)

// TestTraces sends a request whose caller is sampled and one whose caller is not
// to a gateway that would itself sample everything: the caller decides.
func TestTraces(t *testing.T) {
	for _, protocol := range []string{"http", "grpc"} {
		t.Run(protocol, func(t *testing.T) {
			endpoint, seen := collector(t, protocol)
			forwarded := make(chan string, 4)
			s := newSite(t, paths)
			s.upstream.Close()
			s.upstream = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { forwarded <- r.Header.Get("traceparent") }))
			t.Cleanup(s.upstream.Close)
			write(t, s.file("sallyport.yaml"), s.config(0, fromPaths)+fmt.Sprintf(`
telemetry:
  traces: {endpoint: "%s", protocol: %s}
  metrics: {endpoint: "%s", protocol: %s, interval: 1s}
`, endpoint, protocol, endpoint, protocol))
			s.start(t)
			for trace, flags := range map[string]string{sampledTrace: "01", unsampledTrace: "00"} {
				req := s.request()
				req.Header.Set("Traceparent", "00-"+trace+"-"+callerSpan+"-"+flags)
				resp, err := oneConnection(s.ca.pool)().Do(req)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				got := <-forwarded
				if !strings.HasPrefix(got, "00-"+trace+"-") || !strings.HasSuffix(got, "-"+flags) {
					t.Errorf("upstream got traceparent %q, want the caller's trace %s with flags %s", got, trace, flags)
				}
				if flags == "01" && strings.Contains(got, callerSpan) {
					t.Errorf("upstream got the caller's span %q, want the gateway's", got)
				}
			}
			eventually(t, 10*time.Second, "metrics of both kinds arrive", func() bool {
				return strings.Contains(seen.String(), "Name: sallyport.requests") && strings.Contains(seen.String(), "Name: sallyport.decision_log.queued")
			})
			s.gateway.stop(t) // flushes
			eventually(t, 10*time.Second, "spans arrive", func() bool { return len(spans(seen.String())) >= 4 })
			text := seen.String()
			names := strings.Join(spans(text), " ")
			for _, want := range []string{"authenticate", "decide", "upstream"} {
				if !strings.Contains(names, want) {
					t.Errorf("spans %q, want one named %s", names, want)
				}
			}
			if !strings.Contains(text, sampledTrace) || strings.Contains(text, unsampledTrace) {
				t.Error("the caller's sampling decision does not count")
			}
			if strings.Contains(text, s.token) {
				t.Error("a span holds the token")
			}
		})
	}
}

var spanName = regexp.MustCompile(`(?m)^\s+Name\s+: (\S+.*)$`)

func spans(text string) []string {
	var out []string
	for _, m := range spanName.FindAllStringSubmatch(text, -1) {
		out = append(out, m[1])
	}
	return out
}
