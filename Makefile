# Everything that a person or CI does with this tree. Each target installs or
# builds what it needs; `make demo` and `make test` work on a fresh machine with Go.
SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X github.com/sallyport/sallyport/cmd/sallyport/internal/version.version=$(VERSION)
BIN     := bin/sallyport
TOOLS   := .bin

.PHONY: build
build: ## the binary, static, in bin/
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/sallyport

.PHONY: demo
demo: build ## gateway, issuer and upstream on loopback; prints curl lines to paste
	$(BIN) demo

.PHONY: deps
deps: ## what tests need beside Go: a C compiler for -race, Node.js and Perl for the identity providers, Redis
	.ci/deps

.PHONY: test
test: deps ## every Go test with the race detector
	$(GO) test -race -shuffle=on ./...

.PHONY: pins
pins: ## what is pinned in allocations and memory, without the race detector's own
	$(GO) test -run 'Alloc|Memory' ./engine/... ./proxy/... ./cmd/sallyport/internal/app

.PHONY: generate
generate: build ## references and schemas that come from the code
	$(GO) generate ./cmd/...
	$(MAKE) --no-print-directory chart-schema chart-docs

.PHONY: lint
lint: $(TOOLS)/golangci-lint ## linters and formatting
	$(TOOLS)/golangci-lint fmt --diff
	$(TOOLS)/golangci-lint run --build-tags e2e ./...

.PHONY: fmt
fmt: $(TOOLS)/golangci-lint
	$(TOOLS)/golangci-lint fmt

.PHONY: rego
rego: build ## tests of the embedded policies, with coverage
	d=$$(mktemp -d); trap 'rm -rf "$$d"' EXIT; $(BIN) demo --dir "$$d" 2>/dev/null; $(BIN) test --coverage-floor 100 "$$d/policies"

.PHONY: fuzz
fuzz: ## each fuzz target for FUZZTIME
	.ci/fuzz $(or $(FUZZTIME),10s)

.PHONY: e2e
e2e: build $(TOOLS)/otelcol ## the real binary with real servers under load, and a real browser
	.ci/deps e2e
	$(GO) test -tags e2e -count=1 -timeout 15m ./cmd/sallyport/e2e/...

.PHONY: check
check: ## all that must hold before a change lands
	.ci/check

.PHONY: clean
clean:
	rm -rf bin dist $(TOOLS)

$(TOOLS)/otelcol: .ci/otelcol/go.mod .ci/otelcol/go.sum .ci/otelcol/main.go
	mkdir -p $(TOOLS)
	$(GO) -C .ci/otelcol build -o $(CURDIR)/$@ .

$(TOOLS)/%: .ci/tools/go.mod .ci/tools/go.sum
	mkdir -p $(TOOLS)
	$(GO) -C .ci/tools build -o $(CURDIR)/$(TOOLS)/ tool

-include .ci/charts.mk
-include .ci/bench.mk

.PHONY: help
help:
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16
