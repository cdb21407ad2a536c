# The benchmark against real peers. Included by the Makefile. Its results are in
# bench/results; the machine should do nothing else meanwhile.

.PHONY: bench bench-quick bench-sweep bench-guard bench-thresholds bench-deps

bench-deps: ## what the benchmark needs beside Go: wrk, nginx, HAProxy, h2load
	.ci/bench-deps

$(TOOLS)/bench: $(shell find bench -name '*.go' -o -name '*.lua' 2>/dev/null) go.mod
	mkdir -p $(TOOLS)
	$(GO) build -trimpath -o $@ ./bench

bench: bench-deps $(TOOLS)/bench ## this gateway and its peers, 9 rounds, 8 minutes or more on a busy machine
	PATH="$$PATH:/usr/sbin" $(TOOLS)/bench $(BENCH_FLAGS)

bench-quick: bench-deps $(TOOLS)/bench ## the same in under 5 minutes, with wider ranges
	PATH="$$PATH:/usr/sbin" $(TOOLS)/bench -rounds 5 -retries 0 -length 2s -warm 1s $(BENCH_FLAGS)

bench-sweep: $(TOOLS)/bench ## this gateway while rules, data, tokens, paths, connections, bodies grow; reloads; start; 12 minutes
	$(TOOLS)/bench sweep $(BENCH_FLAGS)

bench-guard: bench-deps $(TOOLS)/bench ## fails if the gateway has become slower than bench/thresholds.json allows; under 2 minutes
	PATH="$$PATH:/usr/sbin" $(TOOLS)/bench guard $(BENCH_FLAGS)

bench-thresholds: bench-deps $(TOOLS)/bench ## sets bench/thresholds.json from a run on a quiet machine
	PATH="$$PATH:/usr/sbin" $(TOOLS)/bench guard -renew -rounds 9 $(BENCH_FLAGS)
