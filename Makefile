# Everyday targets; `make` alone lists them.

.PHONY: help check run test

help: ## lists the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

check: ## formatting, clippy with warnings denied, tests: what CI runs
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo test --locked

run: ## starts one server with ARGS
	cargo run --release --locked -- $(ARGS)

test: check ## installs what the tests need (nothing beyond Rust so far) and runs them all
