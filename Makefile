# make test runs all that a change has to pass; make help lists the rest.

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME    ?= 20s
VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS     := -s -w -X main.version=$(VERSION)

.PHONY: help build test lint unit alloc deploy conformance soak fuzz bench peers guard man demo clean

help: ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 10

build: ## the program, as ./wxproxy
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o wxproxy ./cmd/wxproxy

man: ## the man pages of all commands, in ./man
	WXPROXY_MAN=$(CURDIR)/man go test -count=1 -run '^TestManPages$$' ./cmd/wxproxy

demo: ## the whole thing in one process, nothing to configure
	go run ./cmd/wxproxy demo

test: lint unit alloc deploy ## all tests; installs what they need (Debian's packages)

# wxproxy runs on these. Each has system calls or fallbacks of its own, in proxy/transport.
PLATFORMS := linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64 windows/arm64 freebsd/amd64

lint: cross ## formatting, go vet, staticcheck, and that it builds on every platform
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo "gofmt the files above"; exit 1; }
	go vet ./...
	go run $(STATICCHECK) ./...

.PHONY: cross $(PLATFORMS)
cross: $(PLATFORMS)

$(PLATFORMS):
	CGO_ENABLED=0 GOOS=$(@D) GOARCH=$(@F) go build -o /dev/null ./cmd/wxproxy
	CGO_ENABLED=0 GOOS=$(@D) GOARCH=$(@F) go vet ./proxy/transport

unit: ## the tests, with the race detector, in random order
	bash .ci/tools.sh
	go test -race -shuffle=on ./...
	go test -race -shuffle=on -tags plainsocket ./proxy/transport # as on other systems than Linux

alloc: ## the tests that count allocations, which the race detector would spoil
	go test -run 'Alloc' ./wechat ./tokens ./proxy ./metrics

deploy: ## the files of deploy/, read with the libraries of docker compose and Kubernetes
	cd deploy/check && go vet ./... && go test ./...

# An SDK's dependencies are installed anew when its lock file has changed.
NODE_SDKS := $(patsubst %/package-lock.json,%/node_modules/.package-lock.json,$(wildcard conformance/*/package-lock.json))
GO_SDKS   := $(filter-out conformance/scenario,$(patsubst %/go.mod,%,$(wildcard conformance/*/go.mod)))

conformance: node $(NODE_SDKS) ## unmodified SDKs before wxproxy and the sandbox WeChat; installs them
	for sdk in $(GO_SDKS); do (cd $$sdk && go mod download && go vet ./...) || exit 1; done
	WXPROXY_CONFORMANCE=1 go test -count=1 -v ./conformance

.PHONY: node
node:
	bash .ci/tools.sh node

conformance/%/node_modules/.package-lock.json: conformance/%/package-lock.json conformance/%/package.json | node
	cd conformance/$* && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	touch $@

SOAK ?= 15m
soak: ## three replicas for SOAK, while one thing after another goes wrong; WXPROXY_SEED=N does it again
	bash .ci/tools.sh
	WXPROXY_SOAK=$(SOAK) go test -count=1 -timeout 0 -v -run '^TestSoak$$' ./cmd/wxproxy

fuzz: ## each fuzz target for FUZZTIME
	bash .ci/fuzz.sh $(FUZZTIME)

bench: ## the figures of the hot path
	go test -run '^$$' -bench . -benchmem ./wechat ./tokens ./proxy ./metrics

peers: ## the cost of a call beside nginx, HAProxy and bare fasthttp; draws the chart of BENCHMARKS.md
	bench/run.sh

guard: ## fails where a call costs more than 1.35 times the same call through the barest proxy
	go run ./bench/guard -limit 1.35

clean: ## what was built or installed here
	rm -rf wxproxy man .tools .bench conformance/*/node_modules
