package sweep

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport/sallyport/bench/load"
	"github.com/sallyport/sallyport/bench/process"
	"github.com/sallyport/sallyport/bench/system"
)

// gateway is a running gateway with a folder of its own. Its configuration and
// policies are in a folder below, etc: folders of files that the gateway reads are
// watched, and it waits until they are quiet, which one with a decision log never
// is.
type gateway struct {
	dir     string
	site    system.Site
	process *process.Process
	ready   time.Duration // from its start to the first 200
}

// startTime bounds the time until a gateway answers: compiling ten thousand rules
// and reading 100 MB take their time on a busy machine.
const startTime = 2 * time.Minute

// start runs a gateway, waits until it answers the first request of t with 200,
// and checks that it decides.
func (g *Ground) start(ctx context.Context, config system.Gateway, t traffic) (*gateway, error) {
	dir, err := os.MkdirTemp(g.Dir, "gateway-")
	if err != nil {
		return nil, fmt.Errorf("make a folder for a gateway: %w", err)
	}
	config.Timeout = g.Mode.Decision
	out := &gateway{dir: dir, site: system.Site{Dir: filepath.Join(dir, "etc"), Upstream: g.Upstream, Work: g.Work, Programs: g.Programs}}
	if err := out.launch(ctx, config, t); err != nil {
		return nil, errors.Join(err, out.stop())
	}
	return out, nil
}

func (w *gateway) launch(ctx context.Context, config system.Gateway, t traffic) error {
	if err := errors.Join(os.Mkdir(w.site.Dir, 0o750), w.site.Addresses(ctx)); err != nil {
		return fmt.Errorf("prepare a gateway: %w", err)
	}
	spec, err := config.Plan(w.site)
	if err != nil {
		return err
	}
	begin := time.Now()
	if w.process, err = process.Launch(w.dir, spec); err != nil {
		return err
	}
	if err := w.answers(ctx, t); err != nil {
		return err
	}
	w.ready = time.Since(begin)
	_, err = system.System{Name: "sallyport"}.Check(ctx, w.site.Address, t.cases())
	return err
}

// answers asks until the answer is 200. Until its policy is active the gateway
// refuses connections or answers 503; any other answer is a mistake of the
// sweep.
func (w *gateway) answers(ctx context.Context, t traffic) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	request := t.request(nil, 0)
	for {
		status, err := load.Ask(ctx, w.site.Address, request, t.body)
		switch {
		case err == nil && status == http.StatusOK:
			return nil
		case err == nil && status != http.StatusServiceUnavailable:
			return fmt.Errorf("the gateway answers its first request with %d", status)
		}
		if err := w.process.Alive(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the gateway does not answer with 200: %w: status %d, %w", ctx.Err(), status, err)
		case <-tick.C:
		}
	}
}

// used is what the gateway's process has used. One that has ended is an error.
func (w *gateway) used() (process.Usage, error) {
	if err := w.process.Alive(); err != nil {
		return process.Usage{}, err
	}
	return process.Used(w.process.PID())
}

// stop ends the gateway and removes its folder: the decision log of a million
// requests is a gigabyte.
func (w *gateway) stop() error {
	var err error
	if w.process != nil {
		err = w.process.Stop()
	}
	return errors.Join(err, os.RemoveAll(w.dir))
}

// metrics reads the gateway's own figures.
func (w *gateway) metrics(ctx context.Context) (metrics, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+w.site.Admin+"/metrics", http.NoBody)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", fmt.Errorf("read the metrics: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	if err != nil {
		return "", fmt.Errorf("read the metrics: %w", err)
	}
	return metrics(raw), nil
}

// metrics is a page in the Prometheus text format.
type metrics string

// sum adds the samples with this name whose labels have all of these pairs, each
// as name="value".
func (m metrics) sum(name string, labels ...string) float64 {
	var out float64
	for line := range strings.Lines(string(m)) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || !strings.HasPrefix(rest, "{") && !strings.HasPrefix(rest, " ") || !hasAll(rest, labels) {
			continue
		}
		fields := strings.Fields(rest[strings.LastIndexByte(rest, '}')+1:])
		if len(fields) == 0 {
			continue
		}
		if v, err := strconv.ParseFloat(fields[0], 64); err == nil {
			out += v
		}
	}
	return out
}

func hasAll(text string, parts []string) bool {
	for _, p := range parts {
		if !strings.Contains(text, p) {
			return false
		}
	}
	return true
}

// replace puts a file of another name, which is kept, in the place of one of the
// gateway's, at once.
func (w *gateway) replace(name, by string) error {
	next := filepath.Join(w.dir, "next") // not in the folder that is watched
	if err := os.Link(by, next); err != nil {
		return fmt.Errorf("replace %s: %w", name, err)
	}
	if err := os.Rename(next, filepath.Join(w.site.Dir, name)); err != nil {
		return fmt.Errorf("replace %s: %w", name, err)
	}
	return nil
}
