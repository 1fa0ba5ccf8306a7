# Targets for people and CI. `make help` lists them.

CARGO ?= cargo
# The tests break things on purpose, which only this feature makes possible. Never in a release.
TEST_FEATURES = --features failpoints
# The behaviour suite runs on SQLite, and then on each of these (as HOOKLEDGER_TEST_DATABASE, see docs/TESTING.md):
# `make test MORE_DATABASES=` leaves them out.
MORE_DATABASES ?= mariadb
# Tests wait for daemons more than they work.
TEST_THREADS ?= 4

.PHONY: help run build test check lint bench bench-audit bench-log bench-retention bench-server tools deny clean \
  simulate simulate-planted chaos soak bench-ready bench-hostile fuzz check-units test-systemd test-deb deb

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## build, start on the embedded database, print what to paste into new-api
	$(CARGO) run --release --locked -- serve --print-setup

build: ## build the release binary
	$(CARGO) build --release --locked

test: tools ## install what the tests need if it is missing, and run every test
	HOOKLEDGER_TEST_DATABASE=sqlite RUST_TEST_THREADS=$(TEST_THREADS) $(CARGO) test --locked $(TEST_FEATURES)
	@set -e; export RUST_TEST_THREADS=$(TEST_THREADS); for database in $(MORE_DATABASES); do \
	  echo "The behaviour suite on $$database:"; \
	  HOOKLEDGER_TEST_DATABASE=$$database $(CARGO) test --locked $(TEST_FEATURES) --test behaviour --test chaos; \
	  SIMULATE_DATABASE=$$database $(CARGO) test --locked $(TEST_FEATURES) --test simulation -- seeds_hold found::; \
	done

check: lint test check-units ## what CI runs: linters, then every test

lint: ## formatting and clippy, warnings denied
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets $(TEST_FEATURES) -- -D warnings

check-units: ## the systemd units: understood without a word, and exposed as little as promised
	$(CARGO) build --locked $(TEST_FEATURES)
	scripts/check-units.sh

test-systemd: ## the units under a real systemd, in a sandbox: boot, watchdog, restart under load, credentials (root, minutes)
	scripts/test-systemd.sh

test-deb: ## the Debian package in the same sandbox: install, upgrade under load, remove, purge
	scripts/test-systemd.sh --package

deb: ## build the Debian package into target/debian (installs cargo-deb and lintian if they are missing)
	scripts/package.sh

bench: ## how many events a second the store settles, by batch size
	$(CARGO) bench --locked --bench settle

bench-retention: ## what clearing a million old rows costs the webhooks that come in meanwhile
	scripts/bench-retention.sh

bench-audit: ## how long an audit of a million charges takes, and what it costs the webhooks (CALLS=N for more)
	scripts/bench-audit.sh $(CALLS)

bench-log: ## how fast new-api's log is caught up with, and what that costs the webhooks
	$(CARGO) test --release --locked $(TEST_FEATURES) --test behaviour log_figures -- --ignored --nocapture --test-threads 1

bench-server: ## events a second, statements and bytes on a private MariaDB, and what a held row costs the others
	scripts/bench-server.sh

simulate: ## N seeds of the simulation from SEED on, on all cores (DATABASE=mariadb: on a private server)
	@N=$(N) SEED=$(SEED) DATABASE=$(DATABASE) CARGO=$(CARGO) scripts/simulate.sh seeds

simulate-planted: ## how many seeds the simulation needs to find each planted bug
	@SEED=$(SEED) CARGO=$(CARGO) scripts/simulate.sh planted

chaos: ## everything that can go wrong, at random, to a loaded daemon for MINUTES=5; books checked (SEED, DATABASE=mariadb)
	@MINUTES=$(MINUTES) SEED=$(SEED) LIVES=$(LIVES) DATABASE=$(DATABASE) CARGO=$(CARGO) scripts/chaos.sh chaos

soak: ## half of full speed (or RATE calls a second) for MINUTES=60: memory and descriptors flat, books exact (DATABASE=mariadb)
	@MINUTES=$(MINUTES) SEED=$(SEED) RATE=$(RATE) DATABASE=$(DATABASE) CARGO=$(CARGO) scripts/chaos.sh soak

bench-ready: ## how long from a kill to ready with CALLS=1000000 in the books (DATABASE=mariadb)
	@CALLS=$(CALLS) SEED=$(SEED) DATABASE=$(DATABASE) CARGO=$(CARGO) scripts/chaos.sh ready

bench-hostile: ## what hostile load costs good events, memory and descriptors: 10,000 idle connections, slow senders, forgers
	CARGO=$(CARGO) scripts/bench-hostile.sh

fuzz: ## feed junk to what reads others' bytes, MINUTES=5 shared by the targets (installs cargo-fuzz if it is missing)
	CARGO=$(CARGO) scripts/fuzz.sh $(or $(MINUTES),5) $(TARGETS)

tools:
	@scripts/install-test-tools.sh

deny: ## licences and duplicate crates (needs cargo-deny)
	@command -v cargo-deny >/dev/null || { echo "cargo-deny is not installed: cargo install cargo-deny --locked"; exit 1; }
	cargo deny check

clean: ## remove what was built; data is kept
	$(CARGO) clean
