"""Loads a folder that fuseline wrote in transformers and compares the logits.

    python tests/golden/check_transformers_loads.py FOLDER

FOLDER/ours.json holds `ids` [t] and fuseline's `logits` [t * v]. Prints the largest
absolute difference; fails above 2e-5, and if transformers misses or does not know a tensor.
"""

import json
import pathlib
import sys

import torch
from transformers import AutoModelForCausalLM, GenerationConfig

LIMIT = 2e-5

folder = pathlib.Path(sys.argv[1])
ours = json.loads((folder / "ours.json").read_text())
model, info = AutoModelForCausalLM.from_pretrained(
    folder, output_loading_info=True, attn_implementation="eager", local_files_only=True
)
for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
    if info[kind]:
        sys.exit(f"{kind}: {sorted(map(str, info[kind]))}")
if model.dtype != torch.float32:
    sys.exit(f"weights came as {model.dtype}, expected float32")
generation = GenerationConfig.from_pretrained(folder)
if generation.eos_token_id != model.config.eos_token_id:
    sys.exit(f"end tokens are {generation.eos_token_id} and {model.config.eos_token_id}")
with torch.no_grad():
    logits = model(torch.tensor([ours["ids"]])).logits[0]
difference = (logits - torch.tensor(ours["logits"]).view_as(logits)).abs().max().item()
print(f"{type(model).__name__}: max abs difference {difference:.2e}, logits up to {logits.abs().max().item():.2f}")
if not difference <= LIMIT:
    sys.exit(f"difference {difference} is above {LIMIT}")
