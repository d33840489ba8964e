"""Generation, loading and tokenizing beside transformers and tokenizers.

    make peers
    cargo bench --workspace --bench generate --no-run   # prints where the program lies
    .peers/venv/bin/python benches/generate.py PROGRAM [FOLDER]

makes random llamas in FOLDER (a temporary one if left out) and runs both sides in turn, each in a process of its own,
with the same threads, number format and prompts. Prints Markdown: medians of three rounds, after one that does not
count. transformers gets all prompts as one batch and as four, and the better of the two counts.
"""

import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

ROUNDS = 3
THREADS = "2"
# Name, configuration, prompts, their tokens, samples, new tokens.
SMALL = dict(hidden_size=256, intermediate_size=688, num_hidden_layers=6, num_attention_heads=4, num_key_value_heads=4, vocab_size=8192)
MIDDLE = dict(hidden_size=512, intermediate_size=1408, num_hidden_layers=8, num_attention_heads=8, num_key_value_heads=4, vocab_size=16384)
LARGE = dict(hidden_size=2048, intermediate_size=5632, num_hidden_layers=18, num_attention_heads=16, num_key_value_heads=8, vocab_size=32000)


def make(folder, sizes, dtype):
    """A llama of random weights with a tokenizer of as many tokens."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    config = LlamaConfig(max_position_embeddings=2048, bos_token_id=0, eos_token_id=1, pad_token_id=0, **sizes)
    LlamaForCausalLM(config).to(getattr(torch, dtype)).save_pretrained(folder)
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=sizes["vocab_size"],
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(words(200_000).splitlines(), trainer)
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"bos_token": "<s>", "eos_token": "</s>"}')


def words(n, seed=1):
    """Lines of made-up words."""
    import random

    draw = random.Random(seed)
    syllables = [a + b for a in "bcdfghjklmnprstvw" for b in ["a", "e", "i", "o", "u", "an", "er", "ing"]]
    line = lambda: " ".join("".join(draw.choices(syllables, k=draw.randint(1, 4))) for _ in range(12))
    return "\n".join(line() for _ in range(n // 12)) + "\n"


def peer(what, *arguments):
    """The other side, in this process."""
    import resource
    import time

    import torch

    torch.set_num_threads(int(THREADS))
    out = {}
    if what == "generate":
        from transformers import AutoModelForCausalLM

        folder, dtype, prompts, samples, tokens, batches = arguments
        ids = torch.tensor([[int(x) for x in line.split()] for line in open(prompts)])
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
        settings = dict(do_sample=True, top_k=0, top_p=1.0, temperature=1.0, pad_token_id=0)

        def run(samples, tokens):
            started = time.perf_counter()
            with torch.inference_mode():
                for part in ids.chunk(int(batches)):
                    n = dict(num_return_sequences=samples, max_new_tokens=tokens, min_new_tokens=tokens)
                    model.generate(part, attention_mask=torch.ones_like(part), **settings, **n)
            return time.perf_counter() - started

        out["seconds"] = run(int(samples), int(tokens))
        out["tokens"] = len(ids) * int(samples) * int(tokens)
        out["prefill"] = run(1, 1)
        out["prompt_tokens"] = ids.numel()
    elif what == "load":
        folder, dtype = arguments
        from transformers import AutoModelForCausalLM

        started = time.perf_counter()
        AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
        out["load"] = time.perf_counter() - started
    elif what == "read":
        started = time.perf_counter()
        for path in pathlib.Path(arguments[0]).glob("*.safetensors"):
            with open(path, "rb", buffering=0) as file:
                piece = bytearray(8 << 20)
                while file.readinto(piece):
                    pass
        out["load"] = time.perf_counter() - started
    else:
        from tokenizers import Tokenizer

        folder, file = arguments
        tokenizer = Tokenizer.from_file(folder + "/tokenizer.json")
        lines = open(file).read().splitlines()
        started = time.perf_counter()
        encoded = tokenizer.encode_batch_fast(lines, add_special_tokens=False)
        out["encode"] = time.perf_counter() - started
        out["ids"] = sum(len(one.ids) for one in encoded)
    out["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(out))


def ask(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.strip().splitlines()[-1])


def sides(commands):
    """Medians of every figure of every side, the sides in turn."""
    found = {name: [] for name in commands}
    for turn in range(ROUNDS + 1):
        for name, command in commands.items():
            figures = ask(*command)
            if turn:
                found[name].append(figures)
    return {name: {key: statistics.median(one[key] for one in all) for key in all[0]} for name, all in found.items()}


def generation(program, home, name, sizes, n_prompts, prompt_tokens, samples, tokens):
    import random

    draw = random.Random(3)
    prompts = home / f"{name}.ids"
    lines = [" ".join(str(draw.randrange(2, sizes["vocab_size"])) for _ in range(prompt_tokens)) for _ in range(n_prompts)]
    prompts.write_text("\n".join(lines) + "\n")
    make(home / name, sizes, "float32")
    this = [sys.executable, __file__, "--peer"]
    for ours, theirs in [("f32", "float32"), ("bf16", "bfloat16")]:
        commands = {"fuseline": [program, "generate", home / name, ours, THREADS, prompts, samples, tokens]}
        for batches in [1, 4]:
            commands[f"in {batches}"] = [*this, "generate", home / name, theirs, prompts, samples, tokens, batches]
        found = sides(commands)
        us = found.pop("fuseline")
        best = min(found.values(), key=lambda one: one["seconds"])
        prefill = min(one["prefill"] for one in found.values())
        rate = lambda one: one["tokens"] / one["seconds"]
        print(
            f"| {name}, {ours} | {rate(us):,.0f} | {rate(best):,.0f} | {rate(us) / rate(best):.1f} "
            f"| {us['prompt_tokens'] / us['prefill']:,.0f} | {us['prompt_tokens'] / prefill:,.0f} "
            f"| {us['peak'] >> 20} | {best['peak'] / 2**20:.0f} |",
            flush=True,
        )


def main():
    program = sys.argv[1]
    with tempfile.TemporaryDirectory(dir=sys.argv[2] if len(sys.argv) > 2 else None) as name:
        home = pathlib.Path(name)
        print(f"{THREADS} threads\n")
        print("| model | tokens/s | transformers | times | prompt tokens/s | transformers | MiB | transformers |")
        print("|---|---|---|---|---|---|---|---|")
        generation(program, home, "6.5M", SMALL, 8, 32, 1, 64)
        generation(program, home, "40M", MIDDLE, 64, 64, 4, 128)
        make(home / "large", LARGE, "bfloat16")
        size = sum(path.stat().st_size for path in (home / "large").glob("*.safetensors"))
        this = [sys.executable, __file__, "--peer"]
        found = sides(
            {
                "fuseline": [program, "load", home / "large", "bf16", THREADS],
                "transformers": [*this, "load", home / "large", "bfloat16"],
                "reading the files": [*this, "read", home / "large"],
            }
        )
        print(f"\n| {size / 1e9:.1f} GB checkpoint, bf16 | seconds | MiB |\n|---|---|---|")
        for side, one in found.items():
            print(f"| {side} | {one['load']:.2f} | {one['peak'] / 2**20:.0f} |")
        text = home / "text.txt"
        text.write_text("".join(words(480_000, seed) for seed in range(30)))
        found = sides(
            {
                "fuseline": [program, "encode", home / "large", text],
                "tokenizers": [*this, "encode", home / "large", text],
            }
        )
        print(f"\n| tokenizing {text.stat().st_size / 1e6:.0f} MB | seconds | ids |\n|---|---|---|")
        for side, one in found.items():
            print(f"| {side} | {one['encode']:.2f} | {one['ids']:,.0f} |")


if __name__ == "__main__":
    if sys.argv[1] == "--peer":
        peer(*sys.argv[2:])
    else:
        main()
