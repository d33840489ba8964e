"""BLEU and ROUGE of made-up pairs of texts by sacrebleu and rouge_score, for tests/golden/overlap.json.

    pip install sacrebleu==2.6.0 rouge-score==0.1.2
    python make_overlap.py > overlap.json
"""

import json
import random
import sys

import sacrebleu
from rouge_score import rouge_scorer

TEXTS = [
    "The cat sat on the mat.", "A cat, which was black, sat quietly on a mat!", "the the the the", "", "One", "one two three",
    "It cost $3.50 (or 3,50 EUR) -- that's 10-15% off; see e.g. [1].", "&quot;Well&quot; &lt;b&gt; R&amp;D <skipped>", "a-\nb c\nd",
    "Größe naïve café 北京 2024-05-06 x_y a/b", "To be, or not to be: that is the question.", "To be or not to be, that's the question",
    "the quick brown fox jumps over the lazy dog", "over the lazy dog the quick brown fox jumps", "1,000.5 and .5 or 5. , .", "  spaced   out  ",
    "İstanbul ΣΑΣ ﬁne", "{curly} ~tilde~ ^caret^ `tick` @at #hash",
]


def main():
    draw = random.Random(7)
    pairs = [(a, b) for a in TEXTS for b in draw.sample(TEXTS, 4)] + [(a, a) for a in TEXTS]
    words = " ".join(TEXTS).split()
    for _ in range(60):
        base = [draw.choice(words) for _ in range(draw.randint(1, 25))]
        changed = [word if draw.random() < 0.7 else draw.choice(words) for word in base]
        pairs.append((" ".join(changed[: draw.randint(1, 25)]), " ".join(base)))
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"])
    rows = []
    for text, reference in pairs:
        rouge = scorer.score(reference, text)
        row = {"text": text, "reference": reference, "bleu": sacrebleu.sentence_bleu(text, [reference]).score}
        rows.append(row | {name: score.fmeasure for name, score in rouge.items()})
    halves = [rows[::2], rows[1::2], rows[:3], rows]
    corpora = [sacrebleu.corpus_bleu([r["text"] for r in rows], [[r["reference"] for r in rows]]).score for rows in halves]
    json.dump({"rows": rows, "corpora": corpora}, sys.stdout, ensure_ascii=False, indent=0)
    sys.stdout.write("\n")


main()
