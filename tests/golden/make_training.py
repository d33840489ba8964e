"""Trains the small random models of make_logits.py by torch and transformers.

    python tests/golden/make_training.py

writes tests/golden/training.json: rows, settings, and for each model and objective the losses
and gradient norms of ten updates of torch.optim.AdamW. The losses are written out here from their
formulas; the learning rate is transformers' own schedule. Made with transformers 5.23.0 and torch 2.11.0.
"""

import json
import pathlib

import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, get_cosine_schedule_with_warmup

HERE = pathlib.Path(__file__).parent
MODELS = ["llama_scaled", "qwen2_tied", "gemma2_capped"]
STEPS = 10
SETTINGS = dict(learning_rate=2e-3, warmup_ratio=0.2, weight_decay=0.1, betas=[0.9, 0.999], eps=1e-8, max_grad_norm=1.0)
BETA = 0.1
ALPHA_END = 0.5
LENGTHS = [(5, 4, 6, 3), (3, 7, 2, 5), (9, 1, 4, 8), (6, 5, 5, 2)]


def rows(generator):
    # Token 0 is the padding, whose embedding transformers leaves untrained where it is read; we train it as any other.
    draw = lambda n: torch.randint(1, 67, (n,), generator=generator).tolist()
    names = ["prompt", "source_chosen", "target_chosen", "rejected"]
    return [dict(zip(names, map(draw, lengths))) for lengths in LENGTHS]


def logp(model, prompt, answer):
    """Sum of the log-probabilities of an answer's tokens; one text at a time, so no filling."""
    ids = torch.tensor([prompt + answer])
    logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1].float()
    return F.log_softmax(logits, -1).gather(1, ids[0, len(prompt) :, None]).sum()


def loss_of(objective, model, data, reference, step):
    if objective == "sft":
        tokens = sum(len(row["source_chosen"]) for row in data)
        return -sum(logp(model, row["prompt"], row["source_chosen"]) for row in data) / tokens
    total = 0
    for row, ref in zip(data, reference):
        h = {role: logp(model, row["prompt"], row[role]) - ref[role] for role in ref}
        alpha = ALPHA_END * step / STEPS if objective == "wrpo" else 1.0
        z = alpha * h["source_chosen"] + (1 - alpha) * h["target_chosen"] - h["rejected"]
        total = total - F.logsigmoid(BETA * z)
    return total / len(data)


def train(name, objective, data):
    model = AutoModelForCausalLM.from_pretrained(HERE / "logits" / name, dtype=torch.float32, attn_implementation="eager")
    model.train()
    assert all(module.p == 0 for module in model.modules() if isinstance(module, torch.nn.Dropout))
    with torch.no_grad():
        reference = [
            {
                # Moved off the policy, so that the first loss is not log 2.
                role: round(float(logp(model, row["prompt"], row[role])) + 0.5 * index - place, 6)
                for place, role in enumerate(["source_chosen", "target_chosen", "rejected"])
            }
            for index, row in enumerate(data)
        ]
    parameters = list(model.parameters())
    groups = [
        dict(params=[p for p in parameters if p.dim() >= 2], weight_decay=SETTINGS["weight_decay"]),
        dict(params=[p for p in parameters if p.dim() < 2], weight_decay=0.0),
    ]
    optimizer = torch.optim.AdamW(groups, lr=SETTINGS["learning_rate"], betas=SETTINGS["betas"], eps=SETTINGS["eps"])
    schedule = get_cosine_schedule_with_warmup(optimizer, int(SETTINGS["warmup_ratio"] * STEPS), STEPS)
    losses, norms, rates = [], [], []
    for step in range(STEPS):
        optimizer.zero_grad()
        loss = loss_of(objective, model, data, reference, step)
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(parameters, SETTINGS["max_grad_norm"])))
        rates.append(schedule.get_last_lr()[0])
        losses.append(float(loss.detach()))
        optimizer.step()
        schedule.step()
    return dict(
        model=name, objective=objective, reference=reference, loss=losses, grad_norm=norms, learning_rate=rates
    )


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    data = rows(torch.Generator().manual_seed(5))
    runs = [train(name, objective, data) for name in MODELS for objective in ["sft", "dpo", "wrpo"]]
    text = json.dumps(dict(steps=STEPS, settings=SETTINGS, beta=BETA, alpha_end=ALPHA_END, rows=data, runs=runs), indent=1)
    (HERE / "training.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
