# make test runs the tests that a change has to pass. make help lists all targets.

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME    ?= 20s
VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS     := -s -w -X main.version=$(VERSION)

.PHONY: help build test lint unit alloc deploy conformance soak fuzz bench peers guard man demo clean

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

build: ## build ./wxproxy
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o wxproxy ./cmd/wxproxy

man: ## write the man pages of all commands to ./man
	WXPROXY_MAN=$(CURDIR)/man go test -count=1 -run '^TestManPages$$' ./cmd/wxproxy

demo: ## run wxproxy and a sandbox WeChat in one process, without configuration
	go run ./cmd/wxproxy demo

test: lint unit alloc deploy ## run all tests; installs what they need (Debian packages)

# The platforms that wxproxy must build for. proxy/transport has system calls or
# fallbacks for each. lint builds one of each system; on the one that differs
# most it examines the tests, too. Each costs a minute of a processor.
PLATFORMS := linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64 windows/arm64 freebsd/amd64

lint: linux/arm64 darwin/arm64 windows/amd64 freebsd/amd64 ## check formatting, go vet, staticcheck, and that it builds on each system
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo "gofmt the files above"; exit 1; }
	go vet ./...
	GOOS=windows CGO_ENABLED=0 go vet ./...
	go run $(STATICCHECK) ./...

.PHONY: cross $(PLATFORMS)
cross: $(PLATFORMS) ## check that it builds on every platform

$(PLATFORMS):
	CGO_ENABLED=0 GOOS=$(@D) GOARCH=$(@F) go build -o /dev/null ./cmd/wxproxy

unit: ## run the tests in random order, with the race detector
	bash .ci/tools.sh
	# cmd/wxproxy mostly waits, so that two other packages can run beside it.
	go test -race -shuffle=on -p 3 -timeout 20m ./...
	# Tests of one goroutine with much to compute, without the race detector.
	go test ./internal/redact
	# Once more with the sockets of other systems: what goes through sockets.
	WXPROXY_PLAIN_SOCKETS=1 go test -shuffle=on ./proxy/...
	WXPROXY_PLAIN_SOCKETS=1 go test -run 'Connection|Bod|Curl|Edge|Demo|Large' ./cmd/wxproxy

alloc: ## run the tests that count allocations, without the race detector
	go test -run 'Alloc' ./wechat ./tokens ./proxy/... ./metrics ./internal/redact

deploy: ## check the files of deploy/ with the libraries of docker compose and Kubernetes
	cd deploy/check && go vet ./... && go test ./...

# The dependencies of an SDK are installed again when its lock file changes.
NODE_SDKS := $(patsubst %/package-lock.json,%/node_modules/.package-lock.json,$(wildcard conformance/*/package-lock.json))
GO_SDKS   := $(filter-out conformance/scenario,$(patsubst %/go.mod,%,$(wildcard conformance/*/go.mod)))

conformance: runtimes $(NODE_SDKS) ## run unmodified SDKs and example services against wxproxy; installs them
	for sdk in $(GO_SDKS); do (cd $$sdk && go mod download && go vet ./...) || exit 1; done
	WXPROXY_CONFORMANCE=1 go test -count=1 -v ./conformance

.PHONY: runtimes
runtimes:
	bash .ci/tools.sh runtimes

conformance/%/node_modules/.package-lock.json: conformance/%/package-lock.json conformance/%/package.json | runtimes
	cd conformance/$* && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	touch $@

SOAK ?= 15m
soak: ## run three replicas for SOAK under faults; WXPROXY_SEED=N repeats a run
	bash .ci/tools.sh
	WXPROXY_SOAK=$(SOAK) go test -count=1 -timeout 0 -v -run '^TestSoak$$' ./cmd/wxproxy

fuzz: ## run each fuzz target for FUZZTIME
	bash .ci/fuzz.sh $(FUZZTIME)

bench: ## run the benchmarks of the hot path
	go test -run '^$$' -bench . -benchmem ./wechat ./tokens ./proxy/... ./metrics ./internal/redact

peers: ## compare with nginx, HAProxy and bare fasthttp; draws the chart of BENCHMARKS.md
	bench/run.sh

guard: ## fail if a request costs more than 1.35 times one through bench/bare
	go run ./bench/guard -limit 1.35

clean: ## remove what was built or installed here
	rm -rf wxproxy man .tools .bench conformance/*/node_modules
