# The two commands of the README, and what they are made of.
.PHONY: quickstart test setup build lint peers

quickstart: build
	target/release/fuseline run pipelines/quickstart.yaml

test: setup
	cargo test --release --workspace

build: setup
	cargo build --release

setup:
	@scripts/setup.sh

lint:
	cargo fmt --all --check
	cargo clippy --release --workspace --all-targets -- -D warnings

# Programs that tests and benchmarks are held against, in an ignored folder.
peers:
	@scripts/peers.sh
