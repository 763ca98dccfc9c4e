# Each target works on a fresh Debian machine with a Rust toolchain and Python 3: `setup` comes first by itself.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

# The programs that sandboxes are made with; `make setup` puts them there.
RUNTIME_VERSION := $(patsubst scripts/runtime-%.json,%,$(wildcard scripts/runtime-*.json))
BLINK_RUNTIME_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/blink/runtime-$(RUNTIME_VERSION)
export BLINK_RUNTIME_DIR

# Seconds for each fuzz target.
FUZZ_SECONDS ?= 30
export FUZZ_SECONDS

# For make soak.
SOAK_CYCLES ?= 10000

# Where `make install` puts the command and the library for C.
PREFIX ?= /usr/local
DESTDIR ?=
PROFILE ?= release
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)

.PHONY: help setup build wheel demo install install-files test vm-test soak bench lint fuzz clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what is missing and fetch the sandbox runtime; quick when nothing is missing
	@scripts/setup

build: setup ## Build target/release/blink
	cargo build --release --package blink-cli

wheel: setup ## Build the Python package, dist/*.whl
	@scripts/setup python
	target/python/tools/bin/maturin build --release --out dist

demo: build ## Show what Blink does, in a minute
	@examples/demo.sh

install: setup ## Install the command with its manual and completions, and libblink for C, below PREFIX (/usr/local)
	cargo build --release --package blink-cli --package blink-ffi
	@$(MAKE) --no-print-directory install-files

# A release build of the library carries all that sandboxes are made with.
install-files:
	@scripts/install "$(DESTDIR)" "$(PREFIX)" "target/$(PROFILE)" "$(VERSION)"

test: setup ## Run every test
	@scripts/test

vm-test: setup ## Run all tests of micro-VMs, on an emulated host where this one cannot (an hour; `make test` runs a part)
	@tests/vm-lab/run-tests --all

soak: setup ## Make and remove SOAK_CYCLES (10000) sandboxes, and compare what is held before and after
	@scripts/setup test
	BLINK_SOAK_CYCLES=$(SOAK_CYCLES) BLINK_SOAK_REPORT="$$PWD/bench/results/soak.md" \
	    cargo test --package blink-core --test soak -- --nocapture

bench: setup ## Run the benchmarks
	@scripts/setup bench
	cargo bench --package blink-wire
	@if [[ -x bench/run ]]; then bench/run; fi

lint: setup ## Check formatting, lints, documentation, scripts and dependencies
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps
	@scripts/lint-scripts
	@scripts/lint-circles
	@scripts/setup lint
	@scripts/lint-dependencies
	@scripts/header --check

fuzz: setup ## Fuzz each target for FUZZ_SECONDS (30), as many at once as there are processors
	@scripts/setup fuzz
	@scripts/fuzz

clean: ## Remove what was built
	cargo clean
	rm -rf fuzz/target
