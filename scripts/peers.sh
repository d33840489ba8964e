#!/usr/bin/env bash
# Fetches what tests and benchmarks are held against into .peers/: a Python
# environment with transformers, query engines and an S3 server, one with other
# dataflow systems, an Azure server for node where npm is there, and b3sum. Tests
# skip with a printed line without them. Google's buckets are tried against a
# server of our own in the tests: no emulator of a registry speaks their XML API.
set -euo pipefail
cd "$(dirname "$0")/.."

python3 -m venv .peers/venv
.peers/venv/bin/python -m pip install --quiet --disable-pip-version-check \
  torch==2.11.0 'transformers[serving]' safetensors tokenizers \
  datafusion duckdb pyarrow 'moto[server]' azure-storage-blob
echo "peers: .peers/venv/bin/python has transformers with its server, datafusion, duckdb, pyarrow and moto" >&2
python3 -m venv .peers/engine
.peers/engine/bin/python -m pip install --quiet --disable-pip-version-check sf-hamilton snakemake redun dvc
echo "peers: .peers/engine/bin has hamilton, snakemake, redun and dvc" >&2
cargo install --quiet --locked --root .peers/b3sum b3sum
echo "peers: .peers/b3sum/bin/b3sum" >&2
if command -v npm >/dev/null; then
  npm install --silent --no-fund --no-audit --prefix .peers azurite
  echo "peers: .peers/node_modules/.bin/azurite-blob" >&2
fi
