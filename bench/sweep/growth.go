package sweep

import (
	"context"
	"fmt"
	"time"

	"github.com/sallyport/sallyport/bench/report"
	"github.com/sallyport/sallyport/bench/system"
	"github.com/sallyport/sallyport/bench/work"
)

// Columns that several sweeps have.
var (
	cpuColumn      = report.Column{Key: "cpu_us", Title: "CPU µs/request", Digits: 1}
	decisionColumn = report.Column{Key: "decision_us", Title: "decision µs", Digits: 1}
	rateColumn     = report.Column{Key: "rps", Title: "requests/s"}
	p99Column      = report.Column{Key: "p99_ms", Title: "p99 ms", Digits: 2}
	memoryColumn   = report.Column{Key: "rss_mib", Title: "RSS MiB"}
	readyColumn    = report.Column{Key: "ready_ms", Title: "start to first 200, ms"}
	firstColumn    = report.Column{Key: "first_us", Title: "CPU µs of the first request with each"}
	failedColumn   = report.Column{Key: "failed", Title: "failed"}
	othersColumn   = report.Column{Key: "others", Title: "others %"}
)

func rules() Sweep {
	return Sweep{run: runRules, page: report.Sweep{
		Name: "rules", Title: "Rules in the policy", Along: "rules", Plotted: "decision_us",
		How: "One rule for each resource, `/v1/RESOURCE/**`: the resource, the method and a role of the caller must fit. 64 connections, 1000 RS256\n" +
			"tokens, requests to all resources in turn. The decision cache has one entry, which the next request never finds, so that every\n" +
			"decision is one of the policy. A decision's time is the mean of the gateway's own measure (`sallyport_decision_duration_seconds`: building\n" +
			"what the policy reads, and evaluating it), taken on one connection for half as long again, where the gateway does not wait for a core.",
		Columns: []report.Column{decisionColumn, cpuColumn, rateColumn, p99Column, memoryColumn, readyColumn, failedColumn, othersColumn},
		Lines: []report.Line{
			{Name: "Rego", About: "generated rules in Rego, `input.request.segments[1] == \"r00042\"` in each, which OPA finds by its index of rules"},
			{Name: "data", About: "one rule in Rego that looks up `data.rules[input.request.segments[1]]`"},
		},
	}}
}

func runRules(ctx context.Context, g *Ground, page *report.Sweep) error {
	var all []*subject
	for _, n := range g.Mode.Rules {
		asked := traffic{method: "GET", path: resources(n), token: everybody(g.Work)}
		for line, files := range []map[string]string{
			{"policy.rego": written(n, "")},
			{"policy.rego": lookedUp, "data.json": rulesAsData(n)},
		} {
			all = append(all, &subject{
				line: line, at: n, label: count(n), traffic: asked, alone: true, config: system.Gateway{Files: files, Decisions: 1},
			})
		}
	}
	err := g.rounds(ctx, page, all)
	for line, l := range page.Lines {
		flat(page, all, line, 10_000, 200, "decision_us",
			"decision time with 10,000 rules ("+l.Name+") at most 1.2x that with 200")
		flat(page, all, line, 10_000, 200, "cpu_us",
			"CPU per request with 10,000 rules ("+l.Name+") at most 1.2x that with 200")
	}
	return err
}

func data() Sweep {
	return Sweep{run: runData, page: report.Sweep{
		Name: "data", Title: "Data of the policy", Along: "MB of data", Plotted: "rss_mib",
		How: "The policy looks the caller up in `data.users` by the subject. 64 connections, 1000 RS256 tokens, decision cache of one entry. The time of a\n" +
			"decision is taken on one connection for half as long again, where the gateway does not wait for a core. The data is a\n" +
			"JSON file of so many 10^6 bytes, some 100 for each user.",
		Columns: []report.Column{memoryColumn, readyColumn, cpuColumn, decisionColumn, rateColumn, p99Column, failedColumn, othersColumn},
		Lines:   []report.Line{{}},
	}}
}

func runData(ctx context.Context, g *Ground, page *report.Sweep) error {
	var all []*subject
	for _, n := range g.Mode.Data {
		all = append(all, &subject{
			at: n, label: count(n), alone: true, traffic: traffic{method: "GET", path: orders, token: everybody(g.Work)},
			config: system.Gateway{
				Files: map[string]string{"policy.rego": known, "data.json": users(n*1_000_000, "1")}, Decisions: 1,
			},
		})
	}
	return g.rounds(ctx, page, all)
}

// smallCache is a cache that shows that the configuration bounds memory.
const smallCache = 1_000

// largestSmall is how many different things a small cache is shown: more prove no
// more, and take long.
const largestSmall = 100_000

func tokens() Sweep {
	return Sweep{run: runTokens, page: report.Sweep{
		Name: "tokens", Title: "Different tokens", Along: "tokens", Plotted: "rss_mib",
		How: "So many valid tokens, each of another subject, in turn on 64 connections; the gateway is otherwise that of the row `sallyport`. They\n" +
			"are signed with EdDSA, all before the first is sent: a million RS256 signatures take half an hour. Each is sent once, which is the column\n" +
			"of first requests (verified, decided and kept), before the rounds begin. Beyond what the caches hold, each request meets a token that\n" +
			"was displaced. The rounds of the largest number go on where the last ended.",
		Columns: []report.Column{memoryColumn, firstColumn, cpuColumn, decisionColumn, rateColumn, p99Column, failedColumn, othersColumn},
		Lines: []report.Line{
			{Name: "default caches", About: "65,536 verified tokens and 100,000 decisions"},
			{Name: "small caches", About: "`cache_size: 1000` of the authenticator and `policy.decision_cache.entries: 1000`"},
		},
	}}
}

func runTokens(ctx context.Context, g *Ground, page *report.Sweep) error {
	largest := 0
	for _, n := range g.Mode.Tokens {
		largest = max(largest, n)
	}
	g.Say("  signing %s tokens", count(largest))
	crowd, err := work.NewCrowd(g.Dir, largest, time.Now())
	if err != nil {
		return err
	}
	var all []*subject
	for _, n := range g.Mode.Tokens {
		config := system.Gateway{Files: system.Granting(), JWKS: crowd.JWKS, Algorithm: work.EdDSA}
		s := subject{
			at: n, label: count(n), config: config, fill: int64(n),
			traffic: traffic{method: "GET", path: orders, token: func(i int64) []byte { return crowd.Token(int(i % int64(n))) }},
		}
		all = append(all, &s)
		if n <= largestSmall {
			small := s
			small.line, small.config.Tokens, small.config.Decisions = 1, smallCache, smallCache
			all = append(all, &small)
		}
	}
	err = g.rounds(ctx, page, all)
	flat(page, all, 0, 1_000_000, 100_000, "rss_mib", "memory with 1,000,000 tokens at most 1.2x that with 100,000, which fill the caches too")
	bounded(page, all, "tokens")
	return err
}

// bounded is the target that a cache's configuration bounds memory: beyond its
// size, memory grows no more.
func bounded(page *report.Sweep, all []*subject, of string) {
	flat(page, all, 1, largestSmall, smallCache, "rss_mib",
		"memory with caches of 1,000: with 100,000 "+of+" at most 1.2x that with 1,000")
}

func paths() Sweep {
	return Sweep{run: runPaths, page: report.Sweep{
		Name: "paths", Title: "Different paths", Along: "paths", Plotted: "rss_mib",
		How: "So many different paths in turn, with one token, on 64 connections, to the gateway of the row `sallyport`, whose policy reads the path: each\n" +
			"path is a decision of its own. Each is sent once before the rounds begin. With more paths than the decision cache holds, it always misses.",
		Columns: []report.Column{memoryColumn, firstColumn, cpuColumn, decisionColumn, rateColumn, p99Column, failedColumn, othersColumn},
		Lines: []report.Line{
			{Name: "default cache", About: "100,000 decisions, 64 MiB"},
			{Name: "small cache", About: "`policy.decision_cache.entries: 1000`"},
		},
	}}
}

func runPaths(ctx context.Context, g *Ground, page *report.Sweep) error {
	var all []*subject
	for _, n := range g.Mode.Paths {
		s := subject{
			at: n, label: count(n), config: system.Gateway{Files: system.Granting()}, fill: int64(n),
			traffic: traffic{
				method: "GET", path: func(dst []byte, i int64) []byte { return order(dst, i%int64(n)) }, token: one(g.Work, "reader"),
			},
		}
		all = append(all, &s)
		if n <= largestSmall {
			small := s
			small.line, small.config.Decisions = 1, smallCache
			all = append(all, &small)
		}
	}
	err := g.rounds(ctx, page, all)
	flat(page, all, 0, 1_000_000, 100_000, "rss_mib", "memory with 1,000,000 paths at most 1.2x that with 100,000, which fill the cache too")
	bounded(page, all, "paths")
	return err
}

func bodies() Sweep {
	return Sweep{run: runBodies, page: report.Sweep{
		Name: "bodies", Title: "Request bodies", Along: "size of the body", Plotted: "cpu_us_per_mib",
		How: "POST with a body of this size on 64 connections, one RS256 token, to the gateway of the row `sallyport`. The policy does not read the body,\n" +
			"so that it streams past it. CPU per MiB is all of a request's CPU divided by the size, from 64 KiB on; below, it is that of the request itself.",
		Columns: []report.Column{cpuColumn, {Key: "cpu_us_per_mib", Title: "CPU µs/MiB"}, memoryColumn, rateColumn, p99Column, failedColumn, othersColumn},
		Lines:   []report.Line{{}},
	}}
}

func runBodies(ctx context.Context, g *Ground, page *report.Sweep) error {
	var all []*subject
	for _, n := range g.Mode.Bodies {
		all = append(all, &subject{
			at: n, label: size(n), config: system.Gateway{Files: system.Granting()},
			traffic: traffic{method: "POST", path: orders, token: one(g.Work, "writer"), body: make([]byte, n)},
		})
	}
	return g.rounds(ctx, page, all)
}

// size writes a number of bytes.
func size(n int) string {
	switch {
	case n >= 1<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<10:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d B", n)
}
