# The two commands of the README, and what they are made of.
.PHONY: quickstart test fuzz setup build lint peers

quickstart: build
	target/release/fuseline run pipelines/quickstart.yaml

test: setup
	cargo test --release --workspace

# A million executions of each fuzz target, and a thousand random pipelines.
fuzz: setup
	FUSELINE_FUZZ=1000000 cargo test --release --workspace --test main -- --nocapture --test-threads 2 fuzz::
	PROPTEST_CASES=1000 cargo test --release --workspace --lib -- --nocapture property::

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
