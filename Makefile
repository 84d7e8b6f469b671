# Stationmaster: `make demo` sells tickets on this machine in a minute, `make test` proves it.

# A target folder outside the clone is shared by all clones of a user.
export CARGO_TARGET_DIR ?= $(HOME)/.cache/stationmaster/target
# Cargo takes what another clone left there for this one's if it is newer than the sources, so that
# the sources of a clone that did not build last have to look new.
ifneq ($(shell cat $(CARGO_TARGET_DIR)/clone 2>/dev/null),$(CURDIR))
$(shell mkdir -p $(CARGO_TARGET_DIR) && find . -path ./target -prune -o -path ./.git -prune -o -type f \
  -exec touch -c {} + && echo $(CURDIR) > $(CARGO_TARGET_DIR)/clone)
endif
# Where `make programs` puts what the end-to-end tests run.
export E2E_PROGRAMS = $(CARGO_TARGET_DIR)/e2e
# Debian's packages, and those of Kafka's jars, need no questions answered.
export DEBIAN_FRONTEND = noninteractive

# All of the code is checked and tested with the same features, so that it is built once.
ALL = --workspace --features node/kafka,node/https,ledger/kafka,ledger/contract,checker/kafka

# In one go, so that what they have in common is built once.
PROGRAMS = -p node -p operator -p local -p buyers -p checker -p bench \
  --features node/kafka,node/https,checker/kafka

.PHONY: demo test engines built patient hasty lint deny unit model fuzz strange programs install ledgers schema local sim teeth contract page cluster chaos tenth bench benches guard help

help: ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

demo: ## a whole fleet in one process; no root, no other packages
	cargo local examples/demo.yaml

test: ## everything; what CI runs
	cargo e2e install --packages
	$(MAKE) --no-print-directory -j2 --output-sync=line engines built
	$(MAKE) --no-print-directory -j2 --output-sync=line patient hasty
	$(MAKE) --no-print-directory tenth
	$(MAKE) --no-print-directory guard
	@echo "make test passed: lint, unit tests, strange bytes, the protocols' model, $(SEEDS) simulated" \
	  "sales, planted bugs, Kafka and Redis, CRD and chart on a real API server, the HTTP contract, a" \
	  "sale in local mode and one on a real cluster, both through faults and judged, a tenth of the" \
	  "chaos, and sales per second beside what is recorded"

# Beside a Cargo that builds no second one may, so this is what it built before.
engines:
	$(CARGO_TARGET_DIR)/debug/e2e install

built:
	$(MAKE) --no-print-directory lint
	$(MAKE) --no-print-directory unit
	$(MAKE) --no-print-directory programs

# What only computes, in the time that what mostly waits leaves: the latter must not wait for it.
patient: ## model, sim, teeth, strange: at idle priority
	chrt --idle 0 $(MAKE) --no-print-directory model
	chrt --idle 0 $(MAKE) --no-print-directory sim
	chrt --idle 0 $(MAKE) --no-print-directory teeth
	chrt --idle 0 $(MAKE) --no-print-directory strange

hasty: ## ledgers, schema, contract, local, cluster
	$(MAKE) --no-print-directory ledgers
	$(MAKE) --no-print-directory schema
	$(MAKE) --no-print-directory contract
	$(MAKE) --no-print-directory local
	$(MAKE) --no-print-directory cluster

lint: ## formatting and clippy, warnings denied
	cargo fmt --all --check
	cargo clippy $(ALL) --all-targets -- -D warnings

# Kept beside the engines, since building it takes minutes; not in `make test` for that reason.
DENY = $(HOME)/.cache/stationmaster/tools/bin/cargo-deny
deny: ## licenses, sources and banned crates of everything we depend on
	[ -x $(DENY) ] || cargo install --quiet --locked --version 0.20.2 \
	  --root $(HOME)/.cache/stationmaster/tools cargo-deny
	$(DENY) --workspace check --hide-inclusion-graph bans licenses sources

# The docs have no code to test, and to look for some takes rustdoc half a minute.
unit: ## every test that needs nothing but this checkout
	cargo test $(ALL) --all-targets

model: ## the protocols on paper, exhaustively, whole and without each of their rules
	cargo run --quiet --profile e2e -p model

SECONDS_EACH ?= 600

fuzz: ## strange bytes for every reader of bytes, SECONDS_EACH (600) seconds for each
	e2e/fuzz/run $(SECONDS_EACH)

strange: ## the same for 20 seconds each
	FUZZ_ENGINE=tests ALL="$(ALL)" e2e/fuzz/run 20

programs: ## what the end-to-end tests run
	cargo build --profile e2e $(PROGRAMS)

install: ## Kubernetes, Kafka, Redis: as root, once; says what it does
	cargo e2e install

ledgers: ## the ledger's suite on a real Kafka
	cargo test $(ALL) --test kafka -- --ignored --nocapture --test-threads 1

# Built before, since nothing reaches a registry from inside the bed.
IN_BED = cargo e2e --bed schema exec-ns cluster -- cargo test --offline $(ALL)
schema: ## the CRD, the chart and the checker on a real API server, Helm and Kafka
	cargo test --no-run $(ALL)
	cargo e2e --bed schema up --nodes 1
	$(IN_BED) --test apiserver --test chart --test kafka; \
	  status=$$?; cargo e2e --bed schema down && exit $$status

local: ## a sale in local mode, sold out while nodes are killed, then judged
	cargo test $(ALL) --test local -- --ignored --nocapture --test-threads 1

# Seeds of one run of the simulator; SEED=n runs one and prints its history.
SEEDS ?= 2000
sim: ## whole sales under one seed each, with faults; SEEDS=100000, SEED=n, TEETH=1
	cargo run --profile e2e -q -p sim $(if $(TEETH),--features teeth) -- \
	  --seeds $(SEEDS) $(if $(SEED),--seed $(SEED)) $(if $(TEETH),--teeth)

teeth: ## bugs planted on purpose, each found again by its stored seed
	$(MAKE) --no-print-directory sim TEETH=1

contract: ## does a node keep to its OpenAPI contract? asked by schemathesis
	e2e/contract/run

page: ## the buyer's page and the live view in a real Chromium; needs Node.js 20; CLUSTER=1
	$(if $(CLUSTER),E2E=1 cargo test $(ALL) --test page -- --ignored --nocapture,e2e/page/run)

cluster: ## a sale on a real Kubernetes, Kafka and Redis
	E2E=1 cargo test $(ALL) --test cluster -- --ignored --nocapture --test-threads 1

# Each has a test of its own, on a bed of its own.
chaos: ## half an hour of overlapping faults on real processes; SEED=n, TENTH=1, MILLION=1
	E2E=1 SEED=$(SEED) TENTH=$(TENTH) ORDERS=$(ORDERS) cargo test $(ALL) --test chaos -- \
	  --ignored --nocapture --test-threads 1 $(if $(MILLION),a_node_killed,no_fault)

tenth: ## a tenth of the chaos
	$(MAKE) --no-print-directory chaos TENTH=1

# What is shipped is what is measured.
MEASURED = -p node -p checker -p bench --features node/kafka,node/https,checker/kafka
bench benches: E2E_PROGRAMS = $(CARGO_TARGET_DIR)/release
bench: ## sales per second of one node beside what HTTP alone can do: three minutes
	cargo build --release $(MEASURED)
	$(E2E_PROGRAMS)/bench $(BENCH)

benches: ## all that can be measured, beside other shops too: twenty minutes; needs mariadb-server-core mariadb-client-core
	cargo build --release $(MEASURED),bench/mariadb
	$(E2E_PROGRAMS)/bench --only \
	  sales,durable,answers,variants,forwarding,arrivals,whole,yardsticks,dry $(BENCH)
	$(E2E_PROGRAMS)/bench scale

guard: ## fails if sales fell by more than 15 % of what is recorded, beside the ceiling
	cargo build --profile e2e $(PROGRAMS)
	$(E2E_PROGRAMS)/bench --guard --rounds 5 --seconds 2
