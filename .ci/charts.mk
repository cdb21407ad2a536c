# Chart, image and cluster test. Included by the Makefile; every tool is pinned
# by .ci/chart-tools/go.mod and comes through the Go module proxy.

CHART           := charts/sallyport
CHART_TOOLS     := .ci/chart-tools
CHART_BIN       := $(CURDIR)/.bin
KUBE_VERSION    := v1.36.3
KUBE_SCHEMAS    := $(CHART_BIN)/schemas-$(KUBE_VERSION)
PROMETHEUS_OPERATOR_VERSION := v0.85.0
GO              ?= go

# One value for the binary, the image's tag and its label; without tags, the chart's appVersion.
IMAGE_VERSION   ?= $(shell sed -n 's/^appVersion: *"\(.*\)"/\1/p' $(CHART)/Chart.yaml)
IMAGE           ?= localhost/sallyport:$(IMAGE_VERSION)
IMAGE_ARCHIVE   ?= dist/sallyport-image.tar
IMAGE_REVISION  := $(shell git rev-parse HEAD 2>/dev/null)
IMAGE_CREATED   := $(or $(SOURCE_DATE_EPOCH),$(shell git log -1 --format=%ct 2>/dev/null),0)
IMAGE_ARCH      ?= $(shell $(GO) env GOARCH)
IMAGE_LDFLAGS   ?= -s -w -X github.com/sallyport/sallyport/cmd/sallyport/internal/version.version=$(IMAGE_VERSION)

.PHONY: chart-tools chart-schema chart-docs chart-lint chart-test chart-package image image-reproducible e2e-kube

# helm and helm-unittest take the Kubernetes version that templates see from here.
kube_minor  = $(word 2,$(subst ., ,$(KUBE_VERSION)))
helm_flags  = $(foreach p,pkg/chartutil pkg/lint/rules,-X helm.sh/helm/v3/$(p).k8sVersionMajor=1 -X helm.sh/helm/v3/$(p).k8sVersionMinor=$(kube_minor))

$(CHART_BIN)/.chart-tools: $(CHART_TOOLS)/go.mod $(CHART_TOOLS)/go.sum $(wildcard $(CHART_TOOLS)/unpack/*.go) .ci/charts.mk
	mkdir -p $(CHART_BIN)
	cd $(CHART_TOOLS) && $(GO) build -trimpath -ldflags '-s -w $(helm_flags)' -o $(CHART_BIN)/ \
		helm.sh/helm/v3/cmd/helm github.com/yannh/kubeconform/cmd/kubeconform github.com/helm-unittest/helm-unittest/cmd/helm-unittest ./unpack
	touch $@

chart-tools: $(CHART_BIN)/.chart-tools ## Build helm, kubeconform and helm-unittest into .bin.

$(KUBE_SCHEMAS)/.done: $(wildcard $(CHART_TOOLS)/schemas/*.go) .ci/charts.mk
	cd $(CHART_TOOLS) && $(GO) run ./schemas -kubernetes $(KUBE_VERSION) -prometheus-operator $(PROMETHEUS_OPERATOR_VERSION) -out $(KUBE_SCHEMAS)
	touch $@

# Part of `make generate`: the chart's values.schema.json from the binary's own schema.
chart-schema: ## Write values.schema.json.
	mkdir -p $(CHART_BIN)
	$(GO) run ./cmd/sallyport schema config > $(CHART_BIN)/config.schema.json
	cd $(CHART_TOOLS) && $(GO) run ./valuesschema -values $(CURDIR)/$(CHART)/schema/values.json \
		-out $(CURDIR)/$(CHART)/values.schema.json < $(CHART_BIN)/config.schema.json

chart-lint: build $(CHART_BIN)/.chart-tools $(KUBE_SCHEMAS)/.done ## helm lint --strict; the manifests against the schemas of Kubernetes, the configuration by the gateway.
	.ci/chart-lint $(CHART_BIN) $(CHART) $(KUBE_SCHEMAS) $(KUBE_VERSION) bin/sallyport

chart-test: $(CHART_BIN)/.chart-tools ## Unit tests of the chart and of the tools around it.
	$(CHART_BIN)/helm-unittest --strict $(CHART)
	cd $(CHART_TOOLS) && $(GO) test ./...

chart-docs: ## Write the chart's README from its values.
	cd $(CHART_TOOLS) && $(GO) tool helm-docs --chart-search-root $(CURDIR)/charts --log-level warning

chart-package: $(CHART_BIN)/.chart-tools ## dist/sallyport-VERSION.tgz.
	mkdir -p dist
	$(CHART_BIN)/helm package $(CHART) --destination dist

# timetzdata: policies convert times between zones, and the image has no zone files.
image: ## Pack the gateway into $(IMAGE_ARCHIVE), without Docker.
	mkdir -p dist/image-$(IMAGE_ARCH)
	CGO_ENABLED=0 GOOS=linux GOARCH=$(IMAGE_ARCH) $(GO) build -trimpath -buildvcs=false -tags timetzdata \
		-ldflags '$(IMAGE_LDFLAGS)' -o dist/image-$(IMAGE_ARCH)/sallyport ./cmd/sallyport
	cd $(CHART_TOOLS) && $(GO) run ./image -binary $(CURDIR)/dist/image-$(IMAGE_ARCH)/sallyport -arch $(IMAGE_ARCH) \
		-tag $(IMAGE) -out $(CURDIR)/$(IMAGE_ARCHIVE) -created $(IMAGE_CREATED) \
		-cmd serve -cmd -c -cmd /etc/sallyport/sallyport.yaml \
		-label org.opencontainers.image.title=sallyport \
		-label 'org.opencontainers.image.description=Policy-as-code gateway that embeds Open Policy Agent' \
		-label org.opencontainers.image.licenses=Apache-2.0 \
		-label org.opencontainers.image.source=https://github.com/sallyport/sallyport \
		-label org.opencontainers.image.version=$(IMAGE_VERSION) \
		-label org.opencontainers.image.revision=$(IMAGE_REVISION)

image-reproducible: ## Build the image twice, the second time without caches of the first, and compare the bytes.
	.ci/image-reproducible

e2e-kube: ## Install the chart on a real Kubernetes (needs root and SALLYPORT_SHARED).
	@.ci/e2e-kube check
	$(MAKE) chart-tools image
	IMAGE=$(IMAGE) IMAGE_ARCHIVE=$(CURDIR)/$(IMAGE_ARCHIVE) HELM=$(CHART_BIN)/helm .ci/e2e-kube
