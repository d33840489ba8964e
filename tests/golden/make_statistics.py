"""Makes statistics.json: tests and intervals by SciPy and statsmodels on generated cases.

    pip install scipy statsmodels
    python make_statistics.py > statistics.json
"""

import json
import random

import numpy as np
import statsmodels.api as sm
from scipy import stats
from scipy.special import betainc
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint


def main():
    draw = random.Random(5)
    golden = {}

    cases = []
    for _ in range(200):
        n = draw.choice([1, 3, 10, 41, 164, 500, 1319, 20000])
        k = draw.choice([0, n, draw.randint(0, n), draw.randint(0, n)])
        level = draw.choice([0.9, 0.95, 0.99])
        low, high = proportion_confint(k, n, alpha=1 - level, method="beta")
        cases.append([k, n, level, low if k else 0.0, high if k < n else 1.0])
    golden["clopper_pearson"] = cases

    cases = []
    for _ in range(100):
        n = draw.choice([1, 7, 164, 1319, 10000])
        k = draw.randint(0, n)
        interval = stats.binomtest(k, n).proportion_ci(method="wilson")
        cases.append([k, n, interval.low, interval.high])
    golden["wilson"] = cases

    cases = []
    for _ in range(200):
        scale = draw.choice([5, 30, 200, 3000])
        b, c = draw.randint(0, scale), draw.randint(1, scale)
        table = [[100, b], [c, 100]]
        cases.append([b, c, mcnemar(table, exact=True).pvalue, mcnemar(table, exact=False, correction=True).pvalue])
    golden["mcnemar"] = cases

    cases = []
    for _ in range(200):
        a, b = 10 ** draw.uniform(-0.5, 4), 10 ** draw.uniform(-0.5, 4)
        x = min(0.999, max(0.001, draw.betavariate(a, b)))
        cases.append([a, b, x, betainc(a, b, x), stats.beta.ppf(x, a, b)])
    golden["beta"] = cases

    cases = []
    for _ in range(100):
        z, p = draw.uniform(-6, 6), draw.uniform(0.0001, 0.9999)
        cases.append([z, stats.norm.sf(z), p, stats.norm.ppf(p)])
    golden["normal"] = cases

    golden["chi_square"] = [
        [x, df, stats.chi2.sf(x, df)] for x, df in ((draw.uniform(0, 30), draw.choice([1, 2, 5])) for _ in range(50))
    ]
    cases = []
    for _ in range(50):
        n = draw.choice([5, 40, 1000])
        k, rate = draw.randint(0, n), draw.uniform(0.01, 0.99)
        cases.append([k, n, rate, stats.binom.cdf(k, n, rate)])
    golden["binomial"] = cases

    cases = []
    for _ in range(50):
        deviation, n = draw.uniform(0.01, 2), draw.choice([30, 164, 805, 1319])
        alpha, power = draw.choice([0.01, 0.05, 0.1]), draw.choice([0.8, 0.9])
        z = stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(power)
        cases.append([deviation, n, alpha, power, z * deviation / n**0.5])
    golden["detectable"] = cases

    cases = []
    for _ in range(25):
        differences = [draw.choice([-2, -1, 0, 0, 1, 1, 3]) for _ in range(draw.randint(3, 11))]
        found = stats.permutation_test(
            (np.array(differences, float),), np.sum, permutation_type="samples", n_resamples=np.inf, vectorized=False
        )
        cases.append([*differences, found.pvalue])
    golden["sign_flip_all"] = cases

    cases = []
    for _ in range(20):
        p = [draw.random() ** 3 for _ in range(draw.randint(1, 12))]
        row = {"p": p}
        for method in ("holm", "fdr_bh"):
            row[method] = multipletests(p, method=method)[1].tolist()
        cases.append(row)
    golden["corrections"] = cases

    cases = []
    for _ in range(10):
        labels = [f"text {draw.randint(0, 9)}" for _ in range(60)]
        shift = {label: draw.gauss(0, 1) for label in sorted(set(labels))}
        values = [round(shift[label] + draw.gauss(0, 1), 4) for label in labels]
        groups = [sorted(set(labels)).index(label) for label in labels]
        fit = {}
        for name, corrected in (("plain", False), ("corrected", True)):
            model = sm.OLS(values, np.ones(60)).fit(cov_type="cluster", cov_kwds={"groups": groups, "use_correction": corrected})
            fit[name] = float(model.bse[0])
        cases.append({"values": values, "clusters": labels, **fit})
    golden["clusters"] = cases
    print(json.dumps(golden, separators=(",", ":"), default=float))


if __name__ == "__main__":
    main()
