// Package load drives one system, with wrk or from this process, and says what it
// saw. It owns the script that chooses tokens and the reading of its result; it
// starts no server and keeps no statistics over runs.
//
// wrk sends the next request of a connection when the last was answered, so that
// its latencies are those at saturation, not those at a given rate. Client is for
// what wrk cannot: requests that are made when they are sent, a million different
// ones, large bodies, a rate, and connections that wait.
package load

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

//go:embed wrk.lua
var script []byte

// Wrk runs wrk.
type Wrk struct {
	path, script, requests string
	connections            int
}

// New finds wrk and writes its script into dir. Requests names the file that
// holds one "path<TAB>token" a line.
func New(dir, requests string, connections int) (*Wrk, error) {
	path, err := exec.LookPath("wrk")
	if err != nil {
		return nil, fmt.Errorf("find the load generator: %w", err)
	}
	w := &Wrk{path: path, script: filepath.Join(dir, "wrk.lua"), requests: requests, connections: connections}
	if err := os.WriteFile(w.script, script, 0o600); err != nil {
		return nil, fmt.Errorf("write the script of wrk: %w", err)
	}
	return w, nil
}

// Result is what one run saw.
type Result struct {
	Requests int64 `json:"requests"`
	Micros   int64 `json:"micros"` // how long the run took, in microseconds
	P50      int64 `json:"p50"`    // in microseconds, as P99
	P99      int64 `json:"p99"`
	Longest  int64 `json:"longest"` // of any request that was answered
	Failed   int64 `json:"failed"`  // connections, reads, writes, timeouts and answers over 399
}

// PerSecond is the rate of completed requests.
func (r Result) PerSecond() float64 {
	return float64(r.Requests) / (float64(r.Micros) / 1e6)
}

// Arguments are wrk's for one run.
func (w *Wrk) Arguments(address string, length time.Duration) []string {
	seconds := strconv.Itoa(int(length.Round(time.Second).Seconds()))
	return []string{
		"-t1", "-c" + strconv.Itoa(w.connections), "-d" + seconds + "s", "--timeout", "5s",
		"-s", w.script, "http://" + address, "--", w.requests,
	}
}

// tolerated is the share of requests that may fail. A system that is starved of
// its cores may time a request out, which is reported and not hidden; with more
// failures, the figures are those of other work.
const tolerated = 0.005

// Run loads address for length, which wrk takes in whole seconds. A run in which
// more requests failed than are tolerated is an error.
func (w *Wrk) Run(ctx context.Context, address string, length time.Duration) (Result, error) {
	ctx, cancel := context.WithTimeout(ctx, length+20*time.Second)
	defer cancel()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, w.path, w.Arguments(address, length)...) //nolint:gosec // wrk, found in the path
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return Result{}, fmt.Errorf("load %s: %w: %s", address, err, bytes.TrimSpace(stderr.Bytes()))
	}
	r, err := Parse(string(out))
	if err != nil {
		return Result{}, fmt.Errorf("load %s: %w", address, err)
	}
	return r, nil
}

// resultMark begins the line that the script prints.
const resultMark = "RESULT "

// Parse reads the output of wrk.
func Parse(out string) (Result, error) {
	for line := range strings.Lines(out) {
		text, ok := strings.CutPrefix(strings.TrimSpace(line), resultMark)
		if !ok {
			continue
		}
		var r Result
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			return Result{}, fmt.Errorf("read the result of wrk: %w", err)
		}
		return r, r.check()
	}
	return Result{}, fmt.Errorf("wrk printed no result:\n%s", out)
}

func (r Result) check() error {
	switch {
	case r.Requests == 0 || r.Micros == 0:
		return fmt.Errorf("no request was answered, %d failed", r.Failed)
	case float64(r.Failed) > tolerated*float64(r.Requests):
		return fmt.Errorf("%d of %d requests failed", r.Failed, r.Requests)
	}
	return nil
}
