"""Loads folders that fuseline wrote in transformers and compares the logits.

    python tests/golden/check_transformers_loads.py FOLDER...

FOLDER/ours.json holds `ids` [t] and fuseline's `logits` [t * v], computed in float32. Prints the
largest absolute difference, a line a folder; fails above 2e-5, and if transformers misses or does
not know a tensor. transformers has no internlm2: its folders are unpacked to a llama's first.
"""

import json
import pathlib
import sys
import tempfile

import torch
from make_logits import INTERNLM2
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GenerationConfig

LIMIT = 2e-5


def llama(folder, to):
    """Writes an internlm2 folder as the llama that it is."""
    config = json.loads((folder / "config.json").read_text())
    tensors = {}
    for path in folder.glob("*.safetensors"):
        tensors.update(load_file(path))
    unpacked = {}
    for name, tensor in tensors.items():
        if ".wqkv." in name:
            kv_heads, e = config["num_key_value_heads"], config["head_dim"]
            groups = tensor.view(kv_heads, -1, e, *tensor.shape[1:])
            for part, heads in zip("qkv", groups.split([groups.shape[1] - 2, 1, 1], 1)):
                own = name.replace("attention.wqkv", f"self_attn.{part}_proj")
                unpacked[own] = heads.reshape(-1, *tensor.shape[1:]).contiguous()
            continue
        for theirs, ours in INTERNLM2.items():
            name = name.replace(ours, theirs)
        unpacked[name] = tensor
    config.update(model_type="llama", architectures=["LlamaForCausalLM"], attention_bias=config.pop("bias"))
    (to / "config.json").write_text(json.dumps(config))
    (to / "generation_config.json").write_text((folder / "generation_config.json").read_text())
    save_file(unpacked, to / "model.safetensors", metadata={"format": "pt"})


def check(folder, ours):
    stored = json.loads((folder / "config.json").read_text())
    if stored["model_type"] == "internlm2":
        with tempfile.TemporaryDirectory() as to:
            llama(folder, pathlib.Path(to))
            return check(pathlib.Path(to), ours)
    options = dict(attn_implementation="eager", experts_implementation="eager", local_files_only=True)
    kept = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", **options).dtype
    if str(kept) != "torch." + stored["torch_dtype"]:
        sys.exit(f"weights came as {kept}, expected {stored['torch_dtype']}")
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True, dtype=torch.float32, **options
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info[kind]:
            sys.exit(f"{kind}: {sorted(map(str, info[kind]))}")
    generation = GenerationConfig.from_pretrained(folder)
    if generation.eos_token_id != model.config.eos_token_id:
        sys.exit(f"end tokens are {generation.eos_token_id} and {model.config.eos_token_id}")
    with torch.no_grad():
        logits = model(torch.tensor([ours["ids"]])).logits[0]
    difference = (logits - torch.tensor(ours["logits"]).view_as(logits)).abs().max().item()
    largest = logits.abs().max().item()
    return difference, f"{type(model).__name__}: max abs difference {difference:.2e}, logits up to {largest:.2f}"


for folder in map(pathlib.Path, sys.argv[1:]):
    difference, line = check(folder, json.loads((folder / "ours.json").read_text()))
    print(f"{folder.name}: {line}")
    if not difference <= LIMIT:
        sys.exit(f"difference {difference} is above {LIMIT}")
