"""Logits of the models in tests/golden/logits by transformers in bfloat16 on the CPU.

    python tests/golden/make_bf16.py

writes tests/golden/bf16.json: by model, the logits after the last token of its first text, and how far they are from
those in float32, at most. Weights are rounded to bfloat16 and everything is computed in it, as transformers does.
transformers has no internlm2 and no longer the rotary scaling `su`: those are left out. Made with transformers 5.23.0 and torch 2.11.0.
"""

import json
import pathlib

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

HERE = pathlib.Path(__file__).parent

torch.set_num_threads(1)
out = {}
for folder in sorted((HERE / "logits").iterdir()):
    if folder.name.startswith("internlm2") or folder.name == "phi3_su":
        continue
    expected = load_file(folder / "expected.safetensors")
    ids = expected["ids"][:1, : expected["lengths"][0]]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, experts_implementation="eager").eval()
    with torch.no_grad():
        logits = model(ids).logits[0, -1].float()
    whole = expected["logits"][0, ids.shape[1] - 1]
    out[folder.name] = {"distance": (logits - whole).abs().max().item(), "logits": [round(x, 6) for x in logits.tolist()]}
    print(folder.name, out[folder.name]["distance"], whole.abs().max().item())
(HERE / "bf16.json").write_text(json.dumps(out, indent=0) + "\n")
