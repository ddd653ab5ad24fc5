# Everyday targets; `make` alone lists them.

PREFIX ?= /usr/local
DESTDIR ?=
CARGO ?= cargo
PYTHON ?= python3
SECONDS ?= 600
TARGETS ?=
CASES ?=
TRIPLE ?=
MODULES ?=

.PHONY: help check test unit it model replay tiny fuzz clients conformance demo run bench bench-takeover soak faults chaos simulate bench-registry dist packaging install

help: ## lists the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

check: ## formatting, clippy with warnings denied, tests that need nothing installed: the everyday part
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(MAKE) --no-print-directory unit replay it

test: check model tiny clients conformance faults chaos packaging ## installs whatever the tests need and runs them, as root: what CI runs

unit: ## tests beside the code
	$(CARGO) test --locked --lib

it: ## tests that run the built program; most of their time is waiting, so that many run at once
	RUST_TEST_THREADS=$${RUST_TEST_THREADS:-6} $(CARGO) test --locked --test it

model: ## clients, instances and kills in an order that a seed decides; SEED=7 replays one, SEEDS=100 plays so many
	$(CARGO) test --locked --test model

tiny: ## the same checks with the engine of the design card; the tests with hostile input are left out
	$(CARGO) clippy --locked --all-targets --features tiny-http -- -D warnings
	$(CARGO) test --locked --features tiny-http --lib http
	RUST_TEST_THREADS=$${RUST_TEST_THREADS:-6} $(CARGO) test --locked --features tiny-http --test it

replay: ## the seeds of the fuzz targets, on stable Rust
	$(CARGO) test --locked --test fuzz

fuzz: ## each parser against hostile input for SECONDS=600; TARGETS=... for some; needs a nightly toolchain, installs cargo-fuzz
	tests/fuzz/run.sh $(SECONDS) $(TARGETS)

clients: ## real clients (Python, TypeScript, Rust, FastMCP, Inspector) against a gateway that is killed under them
	tests/clients/install.sh
	$(CARGO) build --locked --quiet --bins
	$(PYTHON) tests/clients/run.py

conformance: ## the official conformance suite against an instance and through a gateway, about two minutes
	$(CARGO) build --locked --quiet --bins
	$(PYTHON) tests/conformance/run.py

demo: ## a gateway, two example instances with real skills, one call through the one endpoint
	$(CARGO) build --locked --quiet --bins
	$(PYTHON) docs/examples/demo.py

run: ## one instance in the foreground, with the example skills; it takes port 9765 if that is free
	$(CARGO) run --locked --quiet -- --skill-paths docs/examples/skills --load-skills all

bench: ## speed beside nginx, in one run; installs nginx and wrk where they are missing
	$(PYTHON) tests/bench/run.py

faults: ## full, read-only, slow and failing folders, a host that is cut off, under running processes; a minute; needs root
	$(CARGO) build --locked --quiet --bins
	$(PYTHON) tests/faults/run.py $(CASES)

chaos: ## twenty instances, three gateways behind nginx, faults of all kinds for two minutes; needs root; SEED=n has a run again
	$(CARGO) build --locked --quiet --bins
	$(PYTHON) tests/chaos/run.py

simulate: ## SEEDS=100000 runs of the simulated registry, election and names; SEED=n has one again
	SEEDS=$${SEEDS:-100000} $(CARGO) test --locked --release --lib simulation -- --nocapture

bench-registry: ## 100 to 1,000 instances on one folder: time, CPU and writes of a scan; 200 that register in one second
	$(PYTHON) tests/bench/registry.py

bench-takeover: ## the gateway is killed 200 times with 1, 3 and 5 standbys while clients call; about fifteen minutes
	$(PYTHON) tests/bench/takeover.py

soak: ## a minute of attack on the gateway while a client calls a tool; about eight minutes for all three servers
	$(PYTHON) tests/soak/run.py

dist: ## one static program, a tar ball with man page and completions, checksums: into target/dist
	packaging/dist.sh $(TRIPLE)

packaging: ## what packaging/ ships, on a booted systemd, container engines, balancers; twelve minutes; needs root; MODULES=... for some
	$(PYTHON) tests/packaging/run.py $(MODULES)

install: dist ## program, man page, completions and units below $(DESTDIR)$(PREFIX)
	packaging/install.sh "$${CARGO_TARGET_DIR:-target}/dist/dcc-mcp-server" "$(DESTDIR)$(PREFIX)" "$(PREFIX)"
