package load_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/bench/load"
)

const output = `Running 5s test @ http://127.0.0.1:4000
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     2.51ms    1.02ms  21.14ms   88.10%
  127000 requests in 5.00s, 31.00MB read
Requests/sec:  25400.00
RESULT {"requests":127000,"micros":5000000,"p50":2400,"p99":6100,"failed":0}
`

func TestParse(t *testing.T) {
	got, err := load.Parse(output)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(load.Result{Requests: 127000, Micros: 5000000, P50: 2400, P99: 6100}, got); d != "" {
		t.Error(d)
	}
	if got.PerSecond() != 25400 {
		t.Errorf("%v requests a second, want 25400", got.PerSecond())
	}
}

func TestParseRefusesRunsThatMeasuredSomethingElse(t *testing.T) {
	for name, c := range map[string]struct{ out, want string }{
		"failures":   {strings.Replace(output, `"failed":0`, `"failed":900`, 1), "900 of 127000 requests failed"},
		"no request": {strings.Replace(output, `"requests":127000`, `"requests":0`, 1), "no request was answered"},
		"no result":  {"unable to connect", "printed no result"},
		"cut":        {"RESULT {", "read the result of wrk"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := load.Parse(c.out); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestParseReportsTheFewThatFailed(t *testing.T) {
	got, err := load.Parse(strings.Replace(output, `"failed":0`, `"failed":3`, 1))
	if err != nil || got.Failed != 3 {
		t.Errorf("%+v, %v", got, err)
	}
}
