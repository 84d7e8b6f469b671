# Stationmaster: `make demo` sells tickets on this machine in a minute, `make test` proves it.

# A target folder outside the clone is shared by all clones of a user.
export CARGO_TARGET_DIR ?= $(HOME)/.cache/stationmaster/target

.PHONY: demo test lint unit

demo: ## a whole fleet in one process; no root, no other packages
	cargo local examples/demo.yaml

test: lint unit ## everything
	@echo "make test: lint and unit tests ran"

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

unit:
	cargo test --workspace
