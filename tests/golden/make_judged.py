"""Makes judged.json: AlpacaEval's length-controlled win rates and Arena-Hard's ratings by their own programs, on made-up data,
and the order in which NumPy leaves equal keys.

    pip install 'numpy==1.26.4' 'pandas<2.3' scikit-learn==1.4.2 patsy==1.0.2 tqdm
    pip install --no-deps alpaca_eval==0.6.6
    git clone https://github.com/lmarena/arena-hard-auto && git -C arena-hard-auto checkout efc012e192
    python make_judged.py arena-hard-auto > judged.json        # on a processor with AVX-512

The argument is where utils_math.py of Arena-Hard lies. alpaca_eval's regression is imported without the rest of its package,
whose imports it does not need; its download of the gamed baselines is answered with made-up ones.
"""

import functools
import importlib
import json
import math
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import types
import warnings

import numpy as np
import pandas as pd
import sklearn.linear_model
from sklearn.linear_model import LogisticRegression

AVX512 = "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL"
SIZES = [1, 2, 3, 16, 17, 18, 19, 20, 33, 34, 35, 63, 64, 65, 66, 72, 73, 100, 127, 128, 129, 200, 256, 257, 288, 300, 321, 511, 512, 513]
SIZES += [2409, 2415]


def regression(gamed_path):
    """alpaca_eval.metrics.glm_winrate, alone."""
    folder = next(pathlib.Path(p) / "alpaca_eval" for p in sys.path if (pathlib.Path(p) / "alpaca_eval").is_dir())
    for name, path in (("alpaca_eval", folder), ("alpaca_eval.metrics", folder / "metrics")):
        module = types.ModuleType(name)
        module.__path__ = [str(path)]
        sys.modules[name] = module
    utils = types.ModuleType("alpaca_eval.utils")
    utils.convert_to_dataframe = lambda rows: rows
    utils.validate_alpacaeval_preference = lambda x, is_allow_nan=True: (1 <= x <= 2) or (is_allow_nan and np.isnan(x))
    constants = types.ModuleType("alpaca_eval.constants")
    constants.DATASETS_TOKEN, constants.DATASETS_FORCE_DOWNLOAD, constants.DEFAULT_CACHE_DIR = None, False, None
    kinds = types.ModuleType("alpaca_eval.types")
    kinds.AnyLoadableDF = object
    for name, module in (("utils", utils), ("constants", constants), ("types", kinds)):
        sys.modules[f"alpaca_eval.{name}"] = module
        setattr(sys.modules["alpaca_eval"], name, module)
    hub = types.ModuleType("huggingface_hub")
    hub.hf_hub_download = lambda **_: gamed_path
    sys.modules["huggingface_hub"] = hub
    return importlib.import_module("alpaca_eval.metrics.glm_winrate")


def judged_models(draw):
    """Made-up gamed baselines and annotations of three models, one with rows that no judge answered."""
    n = 60
    difficulty = [0.0] + [round(draw.gauss(0, 1.5), 4) for _ in range(n - 1)]
    gamed = []
    for name, shift in (("verbose", -1.5), ("concise", 1.5)):
        for index in range(n):
            gap = draw.gauss(shift, 1)
            p = 1 / (1 + math.exp(1.2 * math.tanh(gap) - 0.3 * difficulty[index] + draw.gauss(0, 1)))
            gamed.append([round(p, 6), index, round(gap, 5), difficulty[index], False, name])
    models = []
    for name, skill, longer, missing in (("weak", -2.0, -300, 0), ("even", 0.1, 500, 0), ("partial", 0.8, 0, 7)):
        rows = []
        for index in range(n):
            base = draw.randint(300, 3000)
            length = max(5, base + longer + draw.randint(-900, 900))
            z = skill + 0.8 * difficulty[index] + 1.0 * math.tanh((length - base) / 700) + draw.gauss(0, 1)
            rows.append([round(1 + 1 / (1 + math.exp(-z)), 6), base, length])
        for index in range(missing):
            rows[3 + 8 * index][0] = None
        rows[1][0] = 1.5
        models.append({"model": name, "rows": rows})
    return gamed, difficulty, models


def alpaca():
    gamed, difficulty, models = judged_models(random.Random(20))
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "gamed.csv")
        columns = ["preference", "index", "std_delta_len", "instruction_difficulty", "not_gamed_baseline", "model"]
        pd.DataFrame(gamed, columns=columns).to_csv(path, index=False)
        glm = regression(path)
        for model in models:
            frame = pd.DataFrame(
                {
                    "preference": [row[0] for row in model["rows"]],
                    "output_1": ["x" * row[1] for row in model["rows"]],
                    "output_2": ["x" * row[2] for row in model["rows"]],
                    "generator_1": "baseline",
                    "generator_2": model["model"],
                }
            )
            frame["preference"] = frame["preference"].astype(float)
            found = glm.get_length_controlled_winrate(frame, save_weights_dir=None)
            model["figures"] = {name: float(value) for name, value in found.items()}
    return {"gamed": gamed, "difficulty": difficulty, "models": models}


def arena(folder, draw):
    """Battles of four models against a baseline and each other, some of them of weight three, with two style elements."""
    sys.path.insert(0, folder)
    published = importlib.import_module("utils_math")
    names = ["base", "owl", "fox", "elk"]
    skill = {"base": 0.0, "owl": 0.7, "fox": -0.9, "elk": 0.2}
    rows = []
    for _ in range(160):
        a = draw.choice(["base", "base", "owl"])
        b = draw.choice([name for name in names if name != a])
        style = {f"{element}_{side}": draw.randint(0, 40) for element in ("length", "bold") for side in "ab"}
        gap = (style["length_a"] - style["length_b"]) / (style["length_a"] + style["length_b"] + 1)
        z = skill[a] - skill[b] + 0.8 * gap + draw.gauss(0, 1)
        winner = "tie" if abs(z) < 0.25 else ("model_a" if z > 0 else "model_b")
        rows.append({"model_a": a, "model_b": b, "winner": winner, "weight": 3 if abs(z) > 1.4 else 1, **style})
    copies = [{**row, "conv_metadata": row} for row in rows for _ in range(row["weight"])]
    frame = pd.DataFrame(copies)
    plain = published.compute_mle_elo(frame, baseline_model="base")
    elements = ["length_a", "bold_a", "length_b", "bold_b"]
    x, y, models = published.construct_style_matrices(frame, apply_ratio=[1, 1], style_elements=elements)
    # With scikit-learn's default tolerance ratings are off by a tenth of a point; these are the minimum's.
    sklearn.linear_model.LogisticRegression = functools.partial(LogisticRegression, tol=1e-11, max_iter=10_000)
    controlled, style = published.fit_bt(x, y, models, baseline_model="base")
    # fit_bt puts the baseline at 1114.
    return {
        "battles": rows,
        "elo": {name: float(plain[name]) for name in names},
        "controlled": {name: float(controlled[name]) - 114 for name in names},
        "style": [float(c) for c in style],
    }


def main():
    warnings.filterwarnings("ignore")
    if sys.argv[1] == "part":
        print(json.dumps({"argsort": [np.argsort(np.full(n, 2)).tolist() for n in SIZES], "alpaca": alpaca()}))
        return
    parts = {}
    for name, disabled in (("avx512", None), ("scalar", AVX512)):
        environment = dict(os.environ)
        if disabled:
            environment["NPY_DISABLE_CPU_FEATURES"] = disabled
        done = subprocess.run([sys.executable, __file__, "part"], env=environment, capture_output=True, text=True, check=True)
        parts[name] = json.loads(done.stdout)
    orders = zip(SIZES, parts["avx512"]["argsort"], parts["scalar"]["argsort"])
    together = parts["avx512"]["alpaca"]
    for model, other in zip(together["models"], parts["scalar"]["alpaca"]["models"]):
        model["figures"] = {"avx512": model["figures"], "scalar": other["figures"]}
    print(
        json.dumps(
            {
                "argsort_of_equals": [{"n": n, "avx512": fast, "scalar": slow} for n, fast, slow in orders],
                "alpaca_eval": together,
                "arena_hard": arena(sys.argv[1], random.Random(3)),
            },
            separators=(",", ":"),
        )
    )


if __name__ == "__main__":
    main()
