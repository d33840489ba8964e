#!/usr/bin/env bash
# Fetches what tests and benchmarks are held against into .peers/: a Python
# environment with transformers. Tests skip with a printed line without it.
set -euo pipefail
cd "$(dirname "$0")/.."

python3 -m venv .peers/venv
.peers/venv/bin/python -m pip install --quiet --disable-pip-version-check \
  torch==2.11.0 transformers safetensors tokenizers
echo "peers: .peers/venv/bin/python has transformers" >&2
