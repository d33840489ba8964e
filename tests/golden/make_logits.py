"""Makes small random models of each family and their logits by transformers.

    python tests/golden/make_logits.py [NAME ...]

writes tests/golden/logits/NAME/: a model's folder as transformers saves it, and
expected.safetensors with `ids` [b, t], `lengths` [b] and `logits` [b, t, v] in float32.
Made with transformers 5.23.0 and torch 2.11.0. `old_config` also rewrites the rotary
settings the way configurations before transformers 5 hold them.
"""

import json
import pathlib
import sys

import torch
from safetensors.torch import save_file
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

HERE = pathlib.Path(__file__).parent / "logits"
SIZES = dict(vocab_size=67, hidden_size=32, intermediate_size=56, num_hidden_layers=3, max_position_embeddings=128)
LLAMA3 = dict(
    rope_type="llama3",
    rope_theta=5000.0,
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=16,
)
MODELS = {
    # Grouped heads, tied, Llama 3.1's scaling, an explicit head width.
    "llama_scaled": (
        LlamaForCausalLM,
        LlamaConfig,
        dict(num_attention_heads=4, num_key_value_heads=2, head_dim=12, tie_word_embeddings=True, rope_parameters=LLAMA3),
    ),
    # One key head per query head, untied, every bias, linear scaling.
    "llama_biased": (
        LlamaForCausalLM,
        LlamaConfig,
        dict(
            num_attention_heads=4,
            num_key_value_heads=4,
            attention_bias=True,
            mlp_bias=True,
            rms_norm_eps=1e-5,
            rope_parameters=dict(rope_type="linear", rope_theta=10000.0, factor=2.0),
        ),
    ),
    # A window shorter than the text on every layer.
    "mistral_window": (
        MistralForCausalLM,
        MistralConfig,
        dict(num_attention_heads=4, num_key_value_heads=1, head_dim=8, sliding_window=7),
    ),
    # Biases on queries, keys and values; tied.
    "qwen2_tied": (
        Qwen2ForCausalLM,
        Qwen2Config,
        dict(num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True),
    ),
    # A window from the second layer on; untied.
    "qwen2_window": (
        Qwen2ForCausalLM,
        Qwen2Config,
        dict(
            num_attention_heads=2,
            num_key_value_heads=1,
            use_sliding_window=True,
            sliding_window=6,
            max_window_layers=1,
            rope_parameters=dict(rope_type="default", rope_theta=1e6),
        ),
    ),
    # Every other layer with a window, both caps low enough to bend, an unusual query scalar.
    "gemma2_capped": (
        Gemma2ForCausalLM,
        Gemma2Config,
        dict(
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            query_pre_attn_scalar=20,
            sliding_window=5,
            attn_logit_softcapping=1.5,
            final_logit_softcapping=2.0,
        ),
    ),
    # No caps, which takes another path through attention; untied.
    "gemma2_uncapped": (
        Gemma2ForCausalLM,
        Gemma2Config,
        dict(
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=10,
            query_pre_attn_scalar=10,
            sliding_window=9,
            attn_logit_softcapping=None,
            final_logit_softcapping=None,
            tie_word_embeddings=False,
        ),
    ),
}
OLD_CONFIG = ["llama_scaled", "qwen2_window"]


def old_config(path):
    """Moves `rope_parameters` to `rope_theta` and `rope_scaling`."""
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = None if rope["rope_type"] == "default" else rope
    config["torch_dtype"] = config.pop("dtype")
    path.write_text(json.dumps(config, indent=2) + "\n")


def make(name):
    model_class, config_class, settings = MODELS[name]
    torch.manual_seed(sum(map(ord, name)))
    config = config_class(**SIZES, **settings, attn_implementation="eager", pad_token_id=0, bos_token_id=1, eos_token_id=2)
    model = model_class(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            # Wide enough that attention, caps and norms all matter.
            parameter.copy_(torch.randn_like(parameter) * 0.2 + (parameter.ndim == 1) * parameter)
        lengths = torch.tensor([24, 13])
        ids = torch.randint(3, config.vocab_size, (2, 24))
        rows = [model(ids[i : i + 1, :n]).logits[0] for i, n in enumerate(lengths)]
        logits = torch.zeros(2, 24, config.vocab_size)
        for i, row in enumerate(rows):
            logits[i, : len(row)] = row
            ids[i, len(row) :] = 0
    folder = HERE / name
    model.save_pretrained(folder)
    if name in OLD_CONFIG:
        old_config(folder / "config.json")
    save_file({"ids": ids, "lengths": lengths, "logits": logits.contiguous()}, folder / "expected.safetensors")
    print(name, sum(p.numel() for p in model.parameters()), "parameters, logits up to", float(logits.abs().max()))


if __name__ == "__main__":
    for name in sys.argv[1:] or MODELS:
        make(name)
