//go:build e2e

package e2e_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport/sallyport/cmd/sallyport/internal/demo"
)

// limitPolicy is what the documentation shows, with a revision to wait for.
func limitPolicy(revision int) string {
	return fmt.Sprintf(`package gateway

default decision := {"allow": false, "headers": {"x-rev": "%d"}, "rate_limit": {"key": "denied", "rate": "1/d"}}

decision := {"allow": true, "rate_limit": {"key": client, "rate": "2/h"}} if client

decision := {"allow": true, "rate_limit": {"key": "everybody", "rate": "1000/d", "burst": 20}} if {
	not client
	input.request.method == "HEAD"
}

client := input.request.headers["x-client"][0]
`, revision)
}

// TestRateLimits has clients use up what the policy gives them, over two routes, through
// reloads of policy and configuration, and more of them than there is room for.
func TestRateLimits(t *testing.T) {
	var served atomic.Int64
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		served.Add(1)
		demo.Echo(w, r)
	}))
	t.Cleanup(up.Close)
	dir, addr, admin := t.TempDir(), freeAddress(t), freeAddress(t)
	file, policy := filepath.Join(dir, "sallyport.yaml"), filepath.Join(dir, "policies", "gateway.rego")
	config := func(room int) string {
		return fmt.Sprintf(`version: v1
listeners: [{name: public, address: "%s"}]
admin: {address: "%s"}
authenticators: {anyone: {anonymous: {}}}
upstreams: {api: {endpoints: ["%s"]}}
routes:
  - {name: orders, match: {path: "/orders/**"}, authenticate: [anyone], upstream: api}
  - {name: items, match: {path: "/items/**"}, authenticate: [anyone], upstream: api}
rate_limits: {max_keys: %d}
policy: {paths: [policies]}
`, addr, admin, up.URL, room)
	}
	write(t, policy, limitPolicy(1))
	write(t, file, config(100))
	p := start(t, "serve", "-c", file)
	waitReady(t, admin)
	send := func(method, path, client string) *http.Response {
		t.Helper()
		req, err := http.NewRequest(method, "http://"+addr+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if client != "" {
			req.Header.Set("X-Client", client)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode == http.StatusOK && strings.Contains(strings.ToLower(string(body)), "ratelimit") {
			t.Fatalf("%v, the upstream got %s", err, body)
		}
		return resp
	}
	const fields = `"requests";q=2;w=3600`
	want := func(method, path, client string, status int, left string) {
		t.Helper()
		resp := send(method, path, client)
		h := resp.Header
		if resp.StatusCode != status || !strings.HasPrefix(h.Get("RateLimit"), left) || h.Get("RateLimit-Policy") != fields {
			t.Fatalf("%s %s for %q: %d, %q, %q, want %d and %s", method, path, client, resp.StatusCode, h.Get("RateLimit"), h.Get("RateLimit-Policy"), status, left)
		}
		if limited := status == http.StatusTooManyRequests; limited != (h.Get("Retry-After") != "") {
			t.Fatalf("%d with Retry-After %q", status, h.Get("Retry-After"))
		}
	}

	want("GET", "/orders/1", "alice", 200, `"requests";r=1;t=1800`)
	want("GET", "/items/1", "alice", 200, `"requests";r=0;t=1`)
	want("GET", "/orders/1", "alice", 429, `"requests";r=0;t=1`) // the decision is cached
	want("GET", "/items/1", "alice", 429, `"requests";r=0;t=1`)
	want("GET", "/orders/1", "bob", 200, `"requests";r=1;t=1800`)
	if served.Load() != 3 {
		t.Errorf("the upstream served %d, want 3", served.Load())
	}
	for range 3 {
		if resp := send("POST", "/orders/1", ""); resp.StatusCode != 403 || resp.Header.Get("RateLimit") != "" {
			t.Fatalf("denied: %d %v", resp.StatusCode, resp.Header)
		}
	}

	// What nobody sent takes nothing.
	for range 3 {
		out, err := exec.Command(binary(t), "explain", "-c", file, "GET", "http://"+addr+"/orders/1", "-H", "x-client: dave").CombinedOutput()
		if err != nil || !strings.Contains(string(out), "outcome: allowed") || !strings.Contains(string(out), `"rate": "2/h"`) {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	want("GET", "/orders/1", "dave", 200, `"requests";r=1;t=1800`)

	// A rush: as many pass as there are tokens.
	var passed, refused atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 10 {
				resp, err := http.Head("http://" + addr + "/items/1")
				switch {
				case err != nil:
					t.Error(err)
				case resp.StatusCode == 200:
					passed.Add(1)
				case resp.StatusCode == 429:
					refused.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if passed.Load() < 20 || passed.Load() > 21 || passed.Load()+refused.Load() != 80 { // one comes back in 86 s
		t.Errorf("%d passed and %d were limited, want 20 and 60", passed.Load(), refused.Load())
	}

	// Another policy and another configuration give nobody tokens.
	write(t, policy, limitPolicy(2))
	eventually(t, 15*time.Second, "the next policy", func() bool { return send("POST", "/orders/1", "").Header.Get("X-Rev") == "2" })
	want("GET", "/orders/1", "alice", 429, `"requests";r=0;t=1`)
	write(t, file, config(4)) // alice, bob, dave, everybody
	eventually(t, 15*time.Second, "the next configuration", func() bool { return strings.Contains(p.stderr.String(), "configuration reloaded") })
	want("GET", "/orders/1", "alice", 429, `"requests";r=0;t=1`)
	want("GET", "/orders/1", "bob", 200, `"requests";r=0;t=1`)
	if resp := send("GET", "/orders/1", "carol"); resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
		t.Errorf("no room for a further key: %d", resp.StatusCode)
	}

	resp, err := http.Get("http://" + admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	metrics, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{
		`sallyport_rate_limits_total{outcome="full"} 1`, `sallyport_rate_limits_keys 4`, `sallyport_rate_limits_total{outcome="limited"} `,
		`outcome="limited",route="orders"`,
	} {
		if !strings.Contains(string(metrics), part) {
			t.Errorf("the metrics have no %s", part)
		}
	}
	if strings.Contains(string(metrics), "alice") {
		t.Error("a key stands in the metrics")
	}
	p.stop(t)
	log := p.stdout.String()
	for _, parts := range [][]string{{`"outcome":"limited","status":429`, `"cached":true`, `"key":"alice"`}, {`"outcome":"unavailable","status":503`, `"key":"carol"`}} {
		if !hasLine(log, parts) {
			t.Errorf("no line of the decision log has %q", parts)
		}
	}
}

func hasLine(log string, parts []string) bool {
	for line := range strings.Lines(log) {
		n := 0
		for _, p := range parts {
			if strings.Contains(line, p) {
				n++
			}
		}
		if n == len(parts) {
			return true
		}
	}
	return false
}
