# Dawn. `make help` lists the targets; each installs what it needs, or says in one sentence what is missing.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# Outside the checkout, so that it stays warm for the next clone.
export CARGO_TARGET_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/dawn/target
DEV := $(CARGO_TARGET_DIR)/debug
RELEASE := $(CARGO_TARGET_DIR)/release
# End-to-end tests mostly wait for processes: so many at once.
AT_ONCE := $(shell echo $$((2 * $$(nproc))))
DIST := $(CARGO_TARGET_DIR)/dist
# Tests want more of some libraries than the binary: where both are needed they are built at once, or everything would be twice.
test unit e2e nat: TESTS := --tests

.PHONY: help build release dist demo test fmt lint unit doc e2e nat conformance clients bench sim soak fuzz tools clean

help: ## this list
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'

tools: ## checks for Rust, installs cargo-nextest when it is missing
	@scripts/tools rust
	@scripts/tools nextest

build: tools ## builds the binary and the test agent
	@echo "== build"
	cargo build --locked --workspace --bins $(TESTS)

release: ## builds the optimised binary
	@scripts/tools rust
	@echo "== release build"
	cargo build --locked --release -p dawn-cli -p dawn-test-agent -p dawn-bench

dist: ## the binary as it is given out: built with a profile of its own work
	@scripts/tools rust
	@scripts/tools profile
	@echo "== what it is measured with"
	cargo build --locked --release -p dawn-test-agent -p dawn-bench
	@scripts/dist

demo: build ## three nodes of one private network, agents on each, tools called across them
	@scripts/demo $(DEV)/dawn $(DEV)/dawn-test-agent

test: fmt lint unit doc e2e conformance clients ## everything: formatting, lints, unit, property and doc tests, end to end, conformance, clients
	@echo "== all of it passed"

fmt: tools ## formatting
	@echo "== formatting"
	cargo fmt --all --check

lint: tools ## clippy and rustdoc without warnings
	@echo "== lints"
	cargo clippy --locked --workspace --all-targets -- -D warnings

unit: tools build ## unit and property tests
	@scripts/tools postgres || true
	@echo "== unit and property tests"
	cargo nextest run --locked --workspace -E 'not package(dawn-e2e)'

doc: tools ## doc tests and documentation
	@echo "== documentation"
	cargo test --locked --workspace --doc --quiet
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --document-private-items --quiet

e2e: tools build ## real processes: joining, calling, crashing, revoking; behind NATs, as root
	@scripts/tools lab
	@echo "== end-to-end tests"
	DAWN_BIN=$(DEV)/dawn DAWN_TEST_AGENT=$(DEV)/dawn-test-agent cargo nextest run --locked --workspace --test-threads $(AT_ONCE) -E 'package(dawn-e2e)'

nat: tools build ## every pair of kinds of NAT in the laboratory: the table of ways and times (root, minutes)
	@scripts/tools lab
	@echo "== every pair of kinds of NAT"
	DAWN_BIN=$(DEV)/dawn DAWN_TEST_AGENT=$(DEV)/dawn-test-agent cargo nextest run --locked --workspace -E 'package(dawn-e2e) & test(/^(nat|nat_lab|reach|roam)::/)' --run-ignored all --no-capture

conformance: build ## the official MCP conformance suite: through two nodes, and the client towards HTTP servers
	@echo "== MCP conformance: through two nodes, and of the client"
	@tests/conformance/all $(DEV)/dawn $(DEV)/dawn-test-agent $(DEV)/conformance-client

clients: build ## third-party clients and servers: Inspector, Python SDK, the reference servers
	@echo "== third-party clients and servers"
	@tests/clients/run $(DEV)/dawn $(DEV)/dawn-test-agent

bench: dist ## the table of measurements (BENCH=name runs one, CASE=text those of the calls with it in their name)
	@echo "== benchmarks"
	@peers=$$(scripts/peers) && scripts/apart $(RELEASE)/dawn-bench --dawn $(DIST)/dawn --agent $(RELEASE)/dawn-test-agent --peers "$$peers" --out bench/results.json $(if $(BENCH),--only $(BENCH)) $(if $(CASE),--case "$(CASE)")

sim: ## whole networks of a thousand nodes in simulated time (SCENARIO=name runs one, SEED=n)
	@scripts/tools rust
	@echo "== simulations"
	cargo build --locked --release -p dawn-sim
	@$(RELEASE)/dawn-sim $(SCENARIO) $(if $(SEED),--seed $(SEED))

soak: release ## an hour of 200 clients that connect, call and drop: memory and descriptors stay flat (SOAK_SECONDS)
	@echo "== soak"
	cargo build --locked --release -p dawn-e2e --bin soak
	@DAWN_BIN=$(RELEASE)/dawn DAWN_TEST_AGENT=$(RELEASE)/dawn-test-agent $(RELEASE)/soak

fuzz: tools ## the parsers of outside bytes, SECONDS (60) each; TARGET=name runs one, KEEP=1 keeps what is new in fuzz/seeds
	@scripts/tools fuzz
	@KEEP=$(KEEP) scripts/fuzz $(or $(SECONDS),60) $(TARGET)

clean: ## removes the build
	cargo clean
