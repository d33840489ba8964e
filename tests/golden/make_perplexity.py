"""Makes a small random model with a tokenizer, and perplexities of texts under it by transformers.

    python tests/golden/make_perplexity.py SHAKESPEARE

reads the text of "tiny Shakespeare" (karpathy/char-rnn, `data/tinyshakespeare/input.txt`; the plays are in the public
domain) and writes tests/golden/perplexity/: a model's folder, texts.jsonl with some of its speeches, and expected.json
with the figures of each domain. `rolling` has windows as lm-evaluation-harness describes them (`lm_eval/utils.py`,
`get_rolling_token_windows`, one token of context), of which the model sees 64 tokens, after the begin token; `strided`
those of transformers' guide "Perplexity of fixed-length models", 48 tokens with a stride of 20 and no begin token.
Made with transformers 5.23.0 and torch 2.11.0.
"""

import json
import math
import pathlib
import re
import sys

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

HERE = pathlib.Path(__file__).parent / "perplexity"


def tokenizer():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(["<s>", "</s>", *alphabet])}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>")
    fast.chat_template = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
    return fast


def nats(model, window, scored):
    """Of the last `scored` tokens of a window."""
    with torch.no_grad():
        logits = model(torch.tensor([window[:-1]])).logits[0].double()
    logps = logits.log_softmax(-1)[torch.arange(len(window) - 1), torch.tensor(window[1:])]
    return -logps[-scored:].sum().item()


def rolling(model, ids, length):
    total, done = 0.0, 1
    while done < len(ids):
        n = min(length, len(ids) - done)
        first = 0 if done == 1 else done + n - length - 1
        total += nats(model, ids[first : done + n], n)
        done += n
    return total, len(ids) - 1


def strided(model, ids, length, stride):
    """The loop of the guide: what a window has beyond the one before is scored, its first token aside."""
    total, n, before = 0.0, 0, 0
    for begin in range(0, len(ids), stride):
        end = min(begin + length, len(ids))
        target = min(end - before, end - begin - 1)
        if target > 0:
            total += nats(model, ids[begin:end], target)
            n += target
        before = end
        if end == len(ids):
            break
    return total, n


def main():
    torch.manual_seed(7)
    sizes = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2)
    config = LlamaConfig(vocab_size=258, max_position_embeddings=64, bos_token_id=0, eos_token_id=1, initializer_range=0.4, **sizes)
    model = LlamaForCausalLM(config).eval()
    fast = tokenizer()
    model.save_pretrained(HERE)
    fast.save_pretrained(HERE)
    speeches = pathlib.Path(sys.argv[1]).read_text().split("\n\n")
    chosen = [speech for speech in speeches if len(speech) > 20][:12]
    rows = [{"text": text, "domain": "short" if len(text) < 64 else "long"} for text in chosen]
    rows[0]["text"] += "  \n\u2014 caf\u00e9 "
    (HERE / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    expected = {}
    for name, of, begin in [
        ("rolling", lambda ids: rolling(model, ids, 64), [fast.bos_token_id]),
        ("strided", lambda ids: strided(model, ids, 48, 20), []),
    ]:
        for domain in ["long", "short"]:
            texts = [row["text"] for row in rows if row["domain"] == domain]
            sums = [of(begin + fast.encode(text, add_special_tokens=False)) for text in texts]
            total, tokens = sum(total for total, _ in sums), sum(n for _, n in sums)
            words = sum(len(re.split(r"\s+", text)) for text in texts)
            size = sum(len(text.encode()) for text in texts)
            expected.setdefault(name, {})[domain] = {
                "nll": total / tokens,
                "perplexity": math.exp(total / tokens),
                "word_perplexity": math.exp(total / words),
                "byte_perplexity": math.exp(total / size),
                "bits_per_byte": total / size / math.log(2),
            }
    (HERE / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
