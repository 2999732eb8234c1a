# Yakumo. Two commands for a fresh Debian machine (root; Go, git and make):
#   make up     installs what is missing, builds, starts a lab, runs the main job
#   make test   installs what is missing, runs every test, those with real guests included
SHELL     := /bin/bash
VERSION   := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
STATE     := .yakumo
IMAGE     := $(STATE)/images/yakumo-mini.qcow2
API       ?= 127.0.0.1:8780
export CGO_ENABLED := 0

.PHONY: all build up down status test unit e2e bench scale chaos fmt vet docs clean

all: build

## build: the one binary, bin/yakumo
build:
	@go build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o bin/yakumo ./cmd/yakumo

$(IMAGE): FORCE
	@mkdir -p $(dir $@)
	@images/mini/build.sh $@
FORCE:

## up: a cloud of three hosts on this machine, two guests that ping each other
up:
	@scripts/deps.sh run
	@echo "building bin/yakumo"
	@$(MAKE) --no-print-directory build
	@$(MAKE) --no-print-directory $(IMAGE)
	@scripts/up.sh $(API)

## down: end the cloud and remove all that up made, the binary and the guest image too
down:
	@if [ -x bin/yakumo ]; then bin/yakumo lab down; fi
	@rm -rf $(STATE) bin

status:
	@bin/yakumo lab status

## test: everything
test:
	@scripts/deps.sh test
	@$(MAKE) --no-print-directory build
	@$(MAKE) --no-print-directory $(IMAGE)
	@scripts/test.sh

## bench: every Go benchmark once; docs/benchmarks.md says more
bench:
	go test -run '^$$' -bench . -benchtime 1s ./...

## scale: clouds of 1,000 hosts with 100,000 ports, with 20,000 servers, 10,000 random operations, measured; fifteen minutes, 8 GiB
scale:
	@mkdir -p $(STATE)
	go test -count=1 -v -timeout 60m ./test/scale -full -state $(abspath $(STATE))

## chaos: ten minutes of random actions on real guests while random processes are killed
chaos: build $(IMAGE)
	YAKUMO_BINARY=$(abspath bin/yakumo) YAKUMO_MINI=$(abspath $(IMAGE)) go test -count=1 -v -timeout 40m ./test/e2e -run 'TestChaos$$' -chaos 10m

fmt:
	gofmt -l -w .

vet:
	go vet ./...

## docs: what is generated from the code
docs:
	go generate ./...

clean: down
