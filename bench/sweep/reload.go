package sweep

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/bench/load"
	"github.com/sallyport/sallyport/bench/process"
	"github.com/sallyport/sallyport/bench/report"
	"github.com/sallyport/sallyport/bench/statistic"
	"github.com/sallyport/sallyport/bench/system"
)

// What is sent while policies change: a rate that leaves the cores air, so that
// what is seen is the reload and not the queue before a gateway that is saturated.
const (
	backgroundRate = 2_000 // requests a second, on the busy connections
	probeRate      = 1_000 // on connections of their own
	probes         = 4
)

func reloads() Sweep {
	return Sweep{run: runReloads, page: report.Sweep{
		Name: "reload", Title: "Reloads under load", Along: "", Plotted: "longest_ms",
		How: "100 rules and 10 MB of data, of which another revision comes each second, while 64 connections send 2,000 requests a second and a client of\n" +
			"its own sends 1,000 a second on 4 more. A request of that client that had to wait for the one before counts from when it was due. Each\n" +
			"round measures the same gateway with and without reloads, in changing order; the client sees the machine's own hitches in both.\n" +
			"Reloads are the activations that the gateway itself counted.",
		Columns: []report.Column{
			{Key: "reloads", Title: "reloads"},
			{Key: "p50_ms", Title: "p50 ms", Digits: 2},
			{Key: "p99_ms", Title: "p99 ms", Digits: 2},
			{Key: "longest_ms", Title: "longest ms", Digits: 1},
			{Key: "load_p99_ms", Title: "p99 ms of the load", Digits: 2},
			{Key: "failed", Title: "failed"},
			cpuColumn, memoryColumn, othersColumn,
		},
		Lines: []report.Line{
			{Name: "files", About: "`policy.paths`; data.json is replaced by renaming"},
			{Name: "bundle", About: "a bundle service that is polled each second, unsigned"},
		},
	}}
}

// replacement makes the other of two revisions of the data available.
type replacement func(revision int) error

func runReloads(ctx context.Context, g *Ground, page *report.Sweep) error {
	const ruleCount = 100
	revisions := [2]map[string]string{}
	for i := range revisions {
		revisions[i] = map[string]string{
			"policy.rego": written(ruleCount, active), "data.json": users(g.Mode.ReloadData*1_000_000, strconv.Itoa(i)),
		}
	}
	asked := traffic{method: "GET", path: resources(ruleCount), token: everybody(g.Work)}
	shelf, err := newShelf(ctx, revisions)
	if err != nil {
		return err
	}
	defer shelf.close()
	var files [2]string
	for i, r := range revisions {
		files[i] = filepath.Join(g.Dir, fmt.Sprintf("data-%d.json", i))
		if err := os.WriteFile(files[i], []byte(r["data.json"]), 0o600); err != nil {
			return fmt.Errorf("write data: %w", err)
		}
	}
	var errs []error
	for line, config := range []system.Gateway{{Files: revisions[0]}, {Bundles: shelf.url}} {
		with := &subject{line: line, at: 1, label: "a reload each second", traffic: asked, config: config}
		without := &subject{line: line, at: 0, label: "no reload", traffic: asked}
		err := g.reload(ctx, without, with, func(w *gateway) replacement {
			if config.Bundles != "" {
				return shelf.publish
			}
			return func(revision int) error { return w.replace("data.json", files[revision]) }
		})
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", page.Lines[line].Name, err))
		}
		fillPage(page, []*subject{without, with})
		reloadTargets(page, without, with)
	}
	return errors.Join(errs...)
}

func reloadTargets(page *report.Sweep, without, with *subject) {
	if len(with.samples) == 0 || len(without.samples) == 0 {
		return
	}
	name := page.Lines[with.line].Name
	stall, control := with.point().Values["longest_ms"], without.point().Values["longest_ms"]
	all := []*subject{without, with}
	page.Targets = append(page.Targets, report.Target{
		Text: "longest stall by reloads (" + name + ") at most 5 ms", Met: stall.Median <= 5,
		Measured: fmt.Sprintf("longest of any request %s ms, without reloads %s ms", spread(stall), spread(control)),
	})
	flat(page, all, with.line, 1, 0, "p99_ms", "p99 with reloads ("+name+") at most 1.2x that without")
	failed := with.point().Values["failed"]
	page.Targets = append(page.Targets, report.Target{
		Text: "no error by reloads (" + name + ")", Met: failed.Max == 0, Measured: fmt.Sprintf("%.0f in the worst round", failed.Max),
	})
}

// reload measures one gateway in rounds, with and without reloads.
func (g *Ground) reload(ctx context.Context, without, with *subject, by func(*gateway) replacement) (err error) {
	w, err := g.start(ctx, with.config, with.traffic)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.stop()) }()
	r := &reloading{gateway: w, replace: by(w)}
	r.load, r.probe = with.loader(w.site.Address), with.loader(w.site.Address)
	r.load.Rate, r.probe.Rate, r.probe.Connections = backgroundRate, probeRate, probes
	if _, err := r.load.Run(ctx, load.Until{Length: g.Mode.Warm}); err != nil {
		return err
	}
	both := []*subject{without, with}
	for round := range g.Mode.Rounds {
		for _, i := range statistic.Rotated(len(both), round) {
			values, err := r.measure(ctx, g.Mode.Reload, both[i] == with)
			if err != nil {
				return fmt.Errorf("%s, round %d: %w", both[i].label, round+1, err)
			}
			both[i].see(round, values)
			if both[i] != with {
				continue
			}
			if err := r.settle(ctx); err != nil {
				return err
			}
			g.Say("  round %d %-20s %2.0f reloads, p99 %.2f ms, longest %.1f ms, %.0f failed, others %.0f %%", round+1, both[i].label,
				values["reloads"], values["p99_ms"], values["longest_ms"], values["failed"], values["others"])
		}
	}
	return nil
}

// reloading is a gateway that is asked while its policy changes.
type reloading struct {
	gateway     *gateway
	load, probe *load.Client
	replace     replacement
	revision    int
}

// measure loads and probes for length; with reloads, another revision comes each
// second.
func (r *reloading) measure(ctx context.Context, length time.Duration, reload bool) (map[string]float64, error) {
	machine, err := process.Watch()
	if err != nil {
		return nil, err
	}
	told, err := r.gateway.metrics(ctx)
	if err != nil {
		return nil, err
	}
	before, err := r.gateway.used()
	if err != nil {
		return nil, err
	}
	background, seen, err := r.drive(ctx, length, reload)
	if err != nil {
		return nil, err
	}
	after, err := r.gateway.used()
	if err != nil {
		return nil, err
	}
	now, err := r.gateway.metrics(ctx)
	if err != nil {
		return nil, err
	}
	others, err := machine.Others()
	if err != nil {
		return nil, err
	}
	reloads := activations(now) - activations(told)
	if reload && reloads == 0 {
		return nil, errors.New("no revision became active")
	}
	return map[string]float64{
		"reloads": reloads, "p50_ms": float64(seen.P50) / 1e3, "p99_ms": float64(seen.P99) / 1e3, "longest_ms": float64(seen.Longest) / 1e3,
		"load_p99_ms": float64(background.P99) / 1e3, "failed": float64(seen.Failed + background.Failed),
		"cpu_us":  float64((after.CPU - before.CPU).Microseconds()) / float64(seen.Requests+background.Requests),
		"rss_mib": mib(after.Resident), "others": 100 * others,
	}, nil
}

// activations is how many policies became active.
func activations(m metrics) float64 {
	return m.sum("sallyport_policy_activations_total", `result="activated"`)
}

// settle waits until the gateway has done with reloads: for longer than a bundle
// service is polled, none has become active and the process has hardly worked.
func (r *reloading) settle(ctx context.Context) error {
	const quiet, hardly = 1500 * time.Millisecond, 150 * time.Millisecond
	tick := time.NewTicker(quiet)
	defer tick.Stop()
	for {
		told, err := r.gateway.metrics(ctx)
		if err != nil {
			return err
		}
		before, err := r.gateway.used()
		if err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for the end of reloads: %w", ctx.Err())
		}
		after, err := r.gateway.used()
		if err != nil {
			return err
		}
		now, err := r.gateway.metrics(ctx)
		if err != nil || activations(now) == activations(told) && after.CPU-before.CPU < hardly {
			return err
		}
	}
}

// drive runs load and probe, and reloads meanwhile.
func (r *reloading) drive(ctx context.Context, length time.Duration, reload bool) (background, seen load.Result, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	var errs [3]error
	until := load.Until{Length: length}
	wg.Go(func() { background, errs[0] = r.load.Run(ctx, until) })
	reloading, stop := context.WithCancel(ctx)
	if reload {
		wg.Go(func() { errs[2] = r.eachSecond(reloading) })
	}
	seen, errs[1] = r.probe.Run(ctx, until)
	stop()
	wg.Wait()
	return background, seen, errors.Join(errs[:]...)
}

// eachSecond brings the other revision until ctx ends.
func (r *reloading) eachSecond(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		r.revision = 1 - r.revision
		if err := r.replace(r.revision); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// shelf is a bundle service with one bundle.
type shelf struct {
	server   *http.Server
	url      string
	archives [2][]byte
	current  atomic.Int64
}

// newShelf makes both revisions to bundles and serves the first on loopback.
func newShelf(ctx context.Context, revisions [2]map[string]string) (*shelf, error) {
	s := &shelf{}
	for i, files := range revisions {
		var err error
		if s.archives[i], err = bundle(files, strconv.Itoa(i)); err != nil {
			return nil, err
		}
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("serve bundles: %w", err)
	}
	s.url = "http://" + ln.Addr().String()
	s.server = &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = s.server.Serve(ln) }() // ends when close closes it; a gateway without bundles says so
	return s, nil
}

// ServeHTTP answers with the current revision, or that the client has it.
func (s *shelf) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i := s.current.Load()
	tag := fmt.Sprintf(`"%d"`, i)
	w.Header().Set("ETag", tag)
	if r.Header.Get("If-None-Match") == tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	w.Header().Set("Content-Type", "application/gzip")
	_, _ = w.Write(s.archives[i]) // a client that went away comes again
}

func (s *shelf) publish(revision int) error {
	s.current.Store(int64(revision))
	return nil
}

func (s *shelf) close() { _ = s.server.Close() } // nobody asks it any more
