#!/usr/bin/env python3
"""Measures judged benchmarks and statistics beside the published programs, on the same made-up data of real size.

    python3 benches/judged.py --python VENV/bin/python --arena-hard DIR

VENV has what tests/golden/make_judged.py needs, DIR is the checkout of Arena-Hard that it names. Ours is the work alone, in a
process that is running (cargo bench); theirs too. Prints Markdown: medians of seven rounds, of three for the slow ones."""

import argparse
import json
import math
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
ITEMS, DRAWS = 1319, 100_000


def made():
    """805 prompts with two gamed baselines and a model, and 1,400 battles."""
    draw = random.Random(1)
    difficulty = [0.0] + [round(draw.gauss(0, 1.5), 4) for _ in range(804)]
    gamed = []
    for name, shift in (("verbose", -1.5), ("concise", 1.5)):
        for index in range(805):
            gap = draw.gauss(shift, 1)
            p = 1 / (1 + math.exp(1.2 * math.tanh(gap) - 0.3 * difficulty[index] + draw.gauss(0, 1)))
            gamed.append([round(p, 6), index, round(gap, 5), difficulty[index], False, name])
    rows = []
    for index in range(805):
        base = draw.randint(300, 3000)
        length = max(5, base - 200 + draw.randint(-900, 900))
        z = -0.5 + 0.8 * difficulty[index] + math.tanh((length - base) / 700) + draw.gauss(0, 1)
        rows.append([round(1 + 1 / (1 + math.exp(-z)), 6), base, length])
    battles = [[draw.choice([0.0, 0.0, 0.5, 1.0]), draw.choice([1, 1, 3])] for _ in range(1000)]
    return {"gamed": gamed, "difficulty": difficulty, "annotations": rows, "battles": battles}


def theirs(path, arena_hard):
    """The published programs' times and figures; runs inside their environment."""
    import warnings

    import numpy as np
    import pandas as pd

    warnings.filterwarnings("ignore")
    sys.path[:0] = [str(ROOT / "tests/golden"), arena_hard]
    import make_judged
    import utils_math

    data = json.loads(pathlib.Path(path).read_text())

    def median(work, rounds):
        times = []
        for _ in range(rounds):
            start = time.perf_counter()
            result = work()
            times.append(time.perf_counter() - start)
        return statistics.median(times), result

    with tempfile.TemporaryDirectory() as folder:
        gamed = os.path.join(folder, "gamed.csv")
        columns = ["preference", "index", "std_delta_len", "instruction_difficulty", "not_gamed_baseline", "model"]
        pd.DataFrame(data["gamed"], columns=columns).to_csv(gamed, index=False)
        glm = make_judged.regression(gamed)
        rows = data["annotations"]
        frame = pd.DataFrame({"preference": [r[0] for r in rows], "output_1": ["x" * r[1] for r in rows]})
        frame["output_2"] = ["x" * r[2] for r in rows]
        frame["generator_1"], frame["generator_2"] = "base", "model"
        length, found = median(lambda: glm.get_length_controlled_winrate(frame.copy(), save_weights_dir=None), 7)
    names = {1.0: "model_a", 0.0: "model_b", 0.5: "tie"}
    copies = [{"model_a": "base", "model_b": "model", "winner": names[s]} for s, w in data["battles"] for _ in range(w)]
    battles = pd.DataFrame(copies)

    def leaderboard():
        elo = utils_math.compute_mle_elo(battles, baseline_model="base")
        utils_math.get_bootstrap_result(battles, utils_math.compute_mle_elo, 100, "base")
        return 100 / (1 + 10 ** ((1000 - elo["model"]) / 400))

    # Its bootstrap names the baseline gpt-4-0314, and leaves ratings unanchored where that is absent.
    arena, score = median(leaderboard, 3)
    differences = np.array([float(i % 7 == 0) - float(i % 9 == 0) for i in range(ITEMS)])

    def resample():
        draw = random.Random(1)
        values = differences.tolist()
        return [sum(draw.choices(values, k=ITEMS)) / ITEMS for _ in range(DRAWS // 100)]

    paired, _ = median(resample, 3)
    figures = {"length": (length, found["length_controlled_winrate"]), "arena": (arena, score), "paired": (100 * paired, None)}
    print("RESULT" + json.dumps({name: {"seconds": s, "figure": f} for name, (s, f) in figures.items()}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", required=True)
    parser.add_argument("--arena-hard", required=True)
    parser.add_argument("--theirs", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.theirs:
        theirs(arguments.theirs, arguments.arena_hard)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "data.json")
        pathlib.Path(path).write_text(json.dumps(made()))
        command = ["cargo", "bench", "--workspace", "--bench", "judged", "--", path]
        ours = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        command = [arguments.python, __file__, "--python", "-", "--arena-hard", arguments.arena_hard, "--theirs", path]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        theirs_found = json.loads(next(line for line in printed.splitlines() if line.startswith("RESULT"))[6:])
    what = {
        "length": "length-controlled win rate of one model, 805 prompts",
        "arena": "Arena-Hard leaderboard with 100 resamples, 1,000 battles",
        "paired": "100,000 paired bootstrap draws over 1,319 items (theirs: Python's `random.choices`, a hundredth, times 100)",
    }
    print("| work | ours, s | theirs, s | ratio | our figure | their figure |\n|---|---|---|---|---|---|")
    for name, text in what.items():
        mine, other = ours[name], theirs_found[name]
        figures = [f"{side['figure']:.4f}" if side.get("figure") is not None else "" for side in (mine, other)]
        ratio = other["seconds"] / mine["seconds"]
        print(f"| {text} | {mine['seconds']:.4f} | {other['seconds']:.3f} | {ratio:.0f} | {figures[0]} | {figures[1]} |")


if __name__ == "__main__":
    main()
