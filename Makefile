# Each target is a line or two; scripts do the rest. `make demo` and `make test` need nothing set up before.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
CARGO ?= cargo
HOST := $(shell rustc -vV | sed -n 's/^host: //p')
# Statically linked, so that they run in any image. They abort when they panic, so no table for unwinding is read.
STATIC := RUSTFLAGS='-C target-feature=+crt-static -C force-unwind-tables=no' $(CARGO)
STATIC_DIR := target/$(HOST)
RUNNER_BYTES_MAX := 1800000
WINDLASS_BYTES_MAX := 20000000
IN_CLUSTER := source target/cluster/env &&

.PHONY: help build binaries image cluster cluster-down cluster-check install demo check test fast fuzz lint gen bench clean-cluster

help: ## Say what there is
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

build: ## The command line: target/release/windlass
	$(STATIC) build --release --locked --bin windlass --target $(HOST)
	mkdir -p target/release
	ln -f $(STATIC_DIR)/release/windlass target/release/windlass

binaries: build ## Static windlass and windlass-runner in target/image
	$(STATIC) build --profile runner --locked --no-default-features --bin windlass-runner --target $(HOST)
	mkdir -p target/image
	cp target/release/windlass $(STATIC_DIR)/runner/windlass-runner target/image/
	@within() { bytes=$$(stat -c %s target/image/$$1); echo "$$1: $$bytes bytes"; \
	  [ "$$bytes" -le "$$2" ] || { echo "$$1 is larger than its budget of $$2"; exit 1; }; }; \
	  within windlass $(WINDLASS_BYTES_MAX); within windlass-runner $(RUNNER_BYTES_MAX)

cluster: ## Boot the test cluster (seconds, once its tools are built)
	tests/cluster/up.sh

cluster-down: ## Stop it and leave nothing behind
	tests/cluster/down.sh

cluster-check: ## Its smoke test, healing and stopping; leaves it stopped
	tests/cluster/life.sh

image: binaries cluster ## The image windlass:dev in the cluster's engine
	$(IN_CLUSTER) tests/cluster/build-image.sh

install: image ## Install the chart into the cluster
	$(IN_CLUSTER) tests/cluster/install.sh

demo: install ## The main job: from a git repository to an image that answers over HTTP
	$(IN_CLUSTER) examples/hello/demo.sh

fast: ## Tests that need nothing but this machine
	$(CARGO) test --locked --lib
	$(CARGO) test --locked --test it fast::

# Not optimised: so overflows are found as well.
fuzz: ## Ten minutes of broken files for the readers of YAML (FUZZ_SECONDS)
	$(CARGO) test --locked --lib client::check::fuzz::long -- --ignored --exact --nocapture | grep -v '^read in'

lint: ## Format, clippy, and the runner built lean
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) clippy --locked --no-default-features --bin windlass-runner -- -D warnings

check: lint fast ## What every commit passes

gen: ## Write the generated files anew
	$(CARGO) run --locked --bin windlass -- crds --dir crds

test: check install ## Everything, on a real cluster
	$(IN_CLUSTER) $(CARGO) test --locked --test it cluster::
	$(IN_CLUSTER) examples/hello/demo.sh

bench: install ## Measure a release in the cluster; see bench/README.md
	$(IN_CLUSTER) bench/bench.py | tee target/bench.md
	$(IN_CLUSTER) bench/local.py | tee -a target/bench.md
