"""Makes small random models of each family and their logits by transformers.

    python tests/golden/make_logits.py [NAME ...]

writes tests/golden/logits/NAME/: a model's folder as transformers saves it, and
expected.safetensors with `ids` [b, t], `lengths` [b] and `logits` [b, t, v] in float32, and
`gradients` [n, 2]: for each tensor of the folder, by name, the norm of the gradient of the first
row's mean loss, and its product with the unit vector along cos(0), cos(1), cos(2), ….
Made with transformers 5.23.0 and torch 2.11.0. `old_config` also rewrites the rotary
settings the way configurations before transformers 5 hold them. transformers has no
internlm2: those are llamas, repacked by `internlm2`.
"""

import copy
import json
import pathlib
import sys
import tempfile

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    MptConfig,
    MptForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    OlmoeConfig,
    OlmoeForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

HERE = pathlib.Path(__file__).parent / "logits"
SIZES = dict(vocab_size=67, hidden_size=32, intermediate_size=56, num_hidden_layers=3, max_position_embeddings=128)
SMALL = dict(num_hidden_layers=2, intermediate_size=40)
MPT = dict(vocab_size=67, n_layers=2, max_seq_len=32, resid_pdrop=0.0)
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
    # The base grows with the text: one row is longer than the model's positions, one is not.
    "llama_dynamic": (
        LlamaForCausalLM,
        LlamaConfig,
        dict(
            SMALL,
            vocab_size=59,
            num_attention_heads=4,
            num_key_value_heads=1,
            max_position_embeddings=16,
            rope_parameters=dict(rope_type="dynamic", rope_theta=1000.0, factor=3.0),
        ),
    ),
    # YaRN with the recommended factor on cosine and sine; one wavelength in the ramp.
    "llama_yarn": (
        LlamaForCausalLM,
        LlamaConfig,
        dict(
            SMALL,
            num_attention_heads=2,
            tie_word_embeddings=True,
            rope_parameters=dict(
                rope_type="yarn",
                rope_theta=5000000.0,
                factor=8.0,
                original_max_position_embeddings=16,
                beta_fast=4.0,
                beta_slow=0.5,
            ),
        ),
    ),
    # YaRN as DeepSeek sets it, the ramp not cut to whole dimensions.
    "llama_yarn_scaled": (
        LlamaForCausalLM,
        LlamaConfig,
        dict(
            SMALL,
            num_attention_heads=2,
            rope_parameters=dict(
                rope_type="yarn",
                rope_theta=10000.0,
                factor=4.0,
                original_max_position_embeddings=32,
                mscale=0.7,
                mscale_all_dim=1.3,
                truncate=False,
            ),
        ),
    ),
    # Norms on heads of another width than hidden / heads; tied.
    "qwen3_tied": (
        Qwen3ForCausalLM,
        Qwen3Config,
        dict(SMALL, num_attention_heads=4, num_key_value_heads=2, head_dim=10, tie_word_embeddings=True),
    ),
    # Biases, a window on some layers, YaRN with a factor of its own; untied.
    "qwen3_window": (
        Qwen3ForCausalLM,
        Qwen3Config,
        dict(
            SMALL,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=16,
            attention_bias=True,
            use_sliding_window=True,
            sliding_window=6,
            layer_types=["sliding_attention", "full_attention"],
            rope_parameters=dict(
                rope_type="yarn",
                rope_theta=1e6,
                factor=4.0,
                original_max_position_embeddings=32,
                attention_factor=1.1,
            ),
        ),
    ),
    # Two rotary embeddings, every other layer with a window; tied.
    "gemma3_pattern": (
        Gemma3ForCausalLM,
        Gemma3TextConfig,
        dict(
            SMALL,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=1,
            head_dim=12,
            query_pre_attn_scalar=15,
            sliding_window=5,
            sliding_window_pattern=2,
        ),
    ),
    # Linear scaling on the layers without a window, a final cap, biases; untied.
    "gemma3_scaled": (
        Gemma3ForCausalLM,
        Gemma3TextConfig,
        dict(
            SMALL,
            vocab_size=73,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=8,
            query_pre_attn_scalar=8,
            sliding_window=7,
            layer_types=["full_attention", "sliding_attention"],
            attention_bias=True,
            final_logit_softcapping=2.0,
            tie_word_embeddings=False,
            rope_parameters=dict(
                full_attention=dict(rope_type="linear", rope_theta=20000.0, factor=8.0),
                sliding_attention=dict(rope_type="default", rope_theta=500.0),
            ),
        ),
    ),
    # Fused projections, a window.
    "phi3_window": (
        Phi3ForCausalLM,
        Phi3Config,
        dict(SMALL, num_attention_heads=4, num_key_value_heads=2, sliding_window=9),
    ),
    # LongRoPE with a row on either side of its border; three quarters of a head turned; tied.
    "phi3_long": (
        Phi3ForCausalLM,
        Phi3Config,
        dict(
            SMALL,
            num_attention_heads=2,
            num_key_value_heads=1,
            tie_word_embeddings=True,
            original_max_position_embeddings=16,
            rope_parameters=dict(
                rope_type="longrope",
                rope_theta=10000.0,
                partial_rotary_factor=0.75,
                short_factor=[1.0, 1.1, 1.2, 1.3, 1.4, 1.5],
                long_factor=[1.0, 1.5, 2.5, 4.0, 6.0, 8.0],
            ),
        ),
    ),
    # LongRoPE as the first Phi-3 models have it: `su`, all settings outside of the rope's own.
    "phi3_su": (
        Phi3ForCausalLM,
        Phi3Config,
        dict(
            SMALL,
            num_attention_heads=4,
            original_max_position_embeddings=8,
            rope_parameters=dict(
                rope_type="longrope",
                rope_theta=10000.0,
                short_factor=[1.0, 1.1, 1.2, 1.4],
                long_factor=[1.0, 2.0, 4.0, 8.0],
            ),
        ),
    ),
    # Norms after each half and on whole projections; grouped heads.
    "olmo2_grouped": (
        Olmo2ForCausalLM,
        Olmo2Config,
        dict(SMALL, num_attention_heads=4, num_key_value_heads=2),
    ),
    "olmo2_biased": (
        Olmo2ForCausalLM,
        Olmo2Config,
        dict(SMALL, num_attention_heads=2, attention_bias=True, tie_word_embeddings=True, rms_norm_eps=1e-6),
    ),
    "mixtral_eight": (
        MixtralForCausalLM,
        MixtralConfig,
        dict(SMALL, intermediate_size=16, num_attention_heads=4, num_key_value_heads=2),
    ),
    # One expert a token, a window, a head width of its own; tied.
    "mixtral_window": (
        MixtralForCausalLM,
        MixtralConfig,
        dict(
            SMALL,
            intermediate_size=24,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=12,
            num_local_experts=3,
            num_experts_per_tok=1,
            sliding_window=6,
            tie_word_embeddings=True,
        ),
    ),
    # A shared expert; the chosen experts' weights as they are.
    "qwen2_moe_shared": (
        Qwen2MoeForCausalLM,
        Qwen2MoeConfig,
        dict(
            SMALL,
            num_attention_heads=4,
            num_key_value_heads=2,
            num_experts=6,
            num_experts_per_tok=3,
            moe_intermediate_size=12,
            shared_expert_intermediate_size=20,
        ),
    ),
    # Experts in the second layer of three, weights that sum to one, no biases, a window; tied.
    "qwen2_moe_mixed": (
        Qwen2MoeForCausalLM,
        Qwen2MoeConfig,
        dict(
            SMALL,
            num_hidden_layers=3,
            intermediate_size=28,
            num_attention_heads=2,
            num_key_value_heads=1,
            num_experts=5,
            num_experts_per_tok=2,
            moe_intermediate_size=14,
            shared_expert_intermediate_size=10,
            decoder_sparse_step=2,
            norm_topk_prob=True,
            qkv_bias=False,
            use_sliding_window=True,
            sliding_window=6,
            tie_word_embeddings=True,
        ),
    ),
    "qwen3_moe_all": (
        Qwen3MoeForCausalLM,
        Qwen3MoeConfig,
        dict(
            SMALL,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=12,
            num_experts=7,
            num_experts_per_tok=3,
            moe_intermediate_size=12,
            norm_topk_prob=True,
        ),
    ),
    # A layer without experts, weights as they are, biases, a window; tied.
    "qwen3_moe_mixed": (
        Qwen3MoeForCausalLM,
        Qwen3MoeConfig,
        dict(
            SMALL,
            num_attention_heads=2,
            num_key_value_heads=2,
            num_experts=4,
            num_experts_per_tok=2,
            moe_intermediate_size=20,
            mlp_only_layers=[0],
            attention_bias=True,
            use_sliding_window=True,
            sliding_window=8,
            tie_word_embeddings=True,
        ),
    ),
    "olmoe_grouped": (
        OlmoeForCausalLM,
        OlmoeConfig,
        dict(
            SMALL,
            intermediate_size=12,
            num_attention_heads=4,
            num_key_value_heads=2,
            num_experts=8,
            num_experts_per_tok=3,
        ),
    ),
    # Clipped low enough to bend, biases, weights that sum to one; tied.
    "olmoe_clipped": (
        OlmoeForCausalLM,
        OlmoeConfig,
        dict(
            SMALL,
            intermediate_size=20,
            num_attention_heads=2,
            num_experts=4,
            num_experts_per_tok=2,
            norm_topk_prob=True,
            clip_qkv=0.7,
            attention_bias=True,
            tie_word_embeddings=True,
        ),
    ),
    "mpt_tied": (MptForCausalLM, MptConfig, dict(MPT, d_model=32, n_heads=4)),
    # A number of heads that is no power of two, clipping, a scale of its own; untied.
    "mpt_clipped": (
        MptForCausalLM,
        MptConfig,
        dict(
            MPT,
            d_model=24,
            n_heads=3,
            attn_config=dict(clip_qkv=0.8, softmax_scale=0.6),
            tie_word_embeddings=False,
        ),
    ),
    "internlm2_grouped": (
        LlamaForCausalLM,
        LlamaConfig,
        dict(SMALL, num_attention_heads=4, num_key_value_heads=2),
    ),
    # Biases, one key head, the scaling of the published chat models.
    "internlm2_dynamic": (
        LlamaForCausalLM,
        LlamaConfig,
        dict(
            SMALL,
            num_attention_heads=4,
            num_key_value_heads=1,
            attention_bias=True,
            max_position_embeddings=16,
            rope_parameters=dict(rope_type="dynamic", rope_theta=10000.0, factor=2.0),
        ),
    ),
}
OLD_CONFIG = ["llama_scaled", "qwen2_window", "gemma3_pattern", "phi3_su", "llama_dynamic", "internlm2_dynamic"]


def old_config(path):
    """Moves `rope_parameters` to `rope_theta` and `rope_scaling`."""
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    if config["model_type"] == "gemma3_text":
        config["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        config["sliding_window_pattern"] = 2
        del config["layer_types"]
        rope = rope["full_attention"]
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = None if rope["rope_type"] == "default" else rope
    if config["model_type"] == "phi3":
        config["rope_scaling"] = {"type": "su", **{field: rope[field] for field in ("short_factor", "long_factor")}}
    if config["model_type"] == "internlm2":
        rope["type"] = rope.pop("rope_type")
    config["torch_dtype"] = config.pop("dtype")
    path.write_text(json.dumps(config, indent=2) + "\n")


INTERNLM2 = {
    "model.embed_tokens": "model.tok_embeddings",
    "lm_head": "output",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.o_proj": "attention.wo",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.up_proj": "feed_forward.w3",
    "mlp.down_proj": "feed_forward.w2",
}


def internlm2(tensors, config):
    """Names a llama's tensors as internlm2 does and packs queries, keys and values by key head."""
    packed = {}
    for name, tensor in tensors.items():
        if ".k_proj." in name or ".v_proj." in name:
            continue
        if ".q_proj." in name:
            parts = [tensors[name.replace("q_proj", part)] for part in ("q_proj", "k_proj", "v_proj")]
            groups = [part.view(config.num_key_value_heads, -1, *tensor.shape[1:]) for part in parts]
            packed[name.replace("self_attn.q_proj", "attention.wqkv")] = torch.cat(groups, 1).flatten(0, 1)
            continue
        for ours, theirs in INTERNLM2.items():
            name = name.replace(ours, theirs)
        packed[name] = tensor
    return packed


def save(model, name, folder):
    """Saves a model's folder and returns its tensors by name."""
    model.save_pretrained(folder)
    if name.startswith("internlm2"):
        path = folder / "config.json"
        config = json.loads(path.read_text())
        config["model_type"] = "internlm2"
        config["architectures"] = ["InternLM2ForCausalLM"]
        config["bias"] = config.pop("attention_bias")
        del config["mlp_bias"]
        path.write_text(json.dumps(config, indent=2) + "\n")
        weights = folder / "model.safetensors"
        save_file(internlm2(load_file(weights), model.config), weights, metadata={"format": "pt"})
    if name in OLD_CONFIG:
        old_config(folder / "config.json")
    return load_file(folder / "model.safetensors")


def gradients(model, name, ids):
    """The numbers of each tensor's gradient, by the tensor's name in the folder."""
    logits = model(ids[:, :-1]).logits
    torch.nn.functional.cross_entropy(logits[0], ids[0, 1:]).backward()
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        for parameter in model.parameters():
            parameter.copy_(parameter.grad)
        rows = []
        for _, tensor in sorted(save(model, name, pathlib.Path(folder)).items()):
            flat = tensor.double().flatten()
            along = torch.arange(len(flat), dtype=torch.float64).cos()
            rows.append([flat.norm().item(), (flat @ along / along.norm()).item()])
    return torch.tensor(rows)


def make(name):
    model_class, config_class, settings = MODELS[name]
    torch.manual_seed(sum(map(ord, name)))
    sizes = settings if config_class is MptConfig else {**SIZES, **settings}
    config = config_class(**sizes, attn_implementation="eager", experts_implementation="eager", pad_token_id=0, bos_token_id=1, eos_token_id=2)
    model = model_class(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            # Wide enough that attention, caps and norms all matter.
            parameter.copy_(torch.randn_like(parameter) * 0.2 + (parameter.ndim == 1) * parameter)
        lengths = torch.tensor([24, 13])
        ids = torch.randint(3, config.vocab_size, (2, 24))
        # Each row by a copy of its own: some rotary embeddings remember what they saw.
        rows = [copy.deepcopy(model)(ids[i : i + 1, :n]).logits[0] for i, n in enumerate(lengths)]
        logits = torch.zeros(2, 24, config.vocab_size)
        for i, row in enumerate(rows):
            logits[i, : len(row)] = row
            ids[i, len(row) :] = 0
    folder = HERE / name
    save(model, name, folder)
    expected = {"ids": ids, "lengths": lengths, "logits": logits.contiguous()}
    expected["gradients"] = gradients(copy.deepcopy(model), name, ids[:1])
    save_file(expected, folder / "expected.safetensors")
    print(name, sum(p.numel() for p in model.parameters()), "parameters, logits up to", float(logits.abs().max()))


if __name__ == "__main__":
    for name in sys.argv[1:] or MODELS:
        make(name)
