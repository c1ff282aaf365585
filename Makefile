# Ghostlight. Two commands on a fresh machine: `make run` and `make test`.

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS  = -s -w -X ghostlight/internal/agent.version=$(VERSION)
export CGO_ENABLED = 0
# The version is ours to say; asking git fails where the checkout is another's.
export GOFLAGS := -buildvcs=false $(GOFLAGS)

.PHONY: run build test lint unit generated e2e ui vm bench generate setup go clean help
.NOTPARALLEL:

## run: build, then watch this host: http://127.0.0.1:4100 (Ctrl-C stops it)
run: build
	@[ "$$(id -u)" != 0 ] || exec bin/ghostlight run; \
	command -v sudo >/dev/null || { echo "ghostlight needs capabilities and there is no sudo: run bin/ghostlight run as root, or see docs/security.md"; exit 1; }; \
	echo "ghostlight needs capabilities: running it by sudo"; exec sudo bin/ghostlight run

## build: one static binary in bin/; needs nothing but Go
build: go
	$(GO) build -trimpath -ldflags "$(LDFLAGS)" -o bin/ghostlight ./cmd/ghostlight

## test: everything CI runs; installs what it needs from Debian's packages
test: setup lint generated build unit e2e ui vm

## setup: install the packages that tests need, and say which
setup: go
	test/setup.sh

# Go is what has to be there; one from 1.21 on fetches the version it needs.
go:
	@$(GO) list -m >/dev/null || { echo "Ghostlight is built by Go 1.26 or later; PATH leads to none (https://go.dev/dl/)"; exit 1; }

## lint: format, vet, and the rules of the house (internal/lint)
lint: go
	@test -z "$$(gofmt -l cmd internal test ui/*.go)" || { gofmt -l cmd internal test ui/*.go; echo "run gofmt"; exit 1; }
	$(GO) vet ./...

## unit: unit, story and kernel tests on this host
unit: go
	@mkdir -p .cache
	NODE_PATH=$(CURDIR)/.cache/duckdb/node_modules $(GO) test -count=1 -json ./cmd/... ./internal/... ./ui/... ./test/vm/... ./test/report/... | $(GO) run ./test/report -save .cache/host.json

## e2e: the real binary on real traffic
e2e: build
	@mkdir -p .cache
	$(GO) test -count=1 -timeout 15m -json ./test/e2e/... | $(GO) run ./test/report -save .cache/e2e.json

## ui: the web page in a real browser
ui: build
	test/browser.sh

## vm: the kernel tests on 5.10, 6.1, 6.12 and 7.2
vm: build
	$(GO) run ./test/vm -host .cache/host.json

## bench: measure, and write docs/bench.md
bench: build
	$(GO) run ./test/bench

## generate: BPF objects, the catalogue, documents; needs clang-19 and npm
generate: go
	$(GO) generate ./...

## generated: what is committed is what the sources make
generated: go
	test/generated.sh

clean:
	rm -rf bin .cache

help:
	@sed -n 's/^## /  /p' Makefile
