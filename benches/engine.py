#!/usr/bin/env python3
"""Measures the engine itself on pipelines that do nothing worth doing: layers of
ten stages, each copying a few bytes from one of the layer before. First run
(durable), run with nothing to do, and plan, beside the peers in .peers/engine
(`make peers`). Build first: cargo build --release.

    python3 benches/engine.py                     # 20, 1,000 and 10,000 stages
    python3 benches/engine.py 1000 --without snakemake   # it takes minutes
    python3 benches/engine.py 100000 --runs 1 --no-peers

Prints Markdown: medians over the runs, wall time and the largest resident set
of any one process."""

import argparse
import datetime
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
FUSELINE = ROOT / "target/release/fuseline"
PEERS = ROOT / ".peers/engine/bin"
WIDTH = 10


def names(n):
    """Every stage with the one it copies from."""
    for i in range(n):
        layer, place = divmod(i, WIDTH)
        yield f"s{layer}_{place}", f"s{layer - 1}_{place}" if layer else None


def fuseline(folder, n):
    lines = ["name: layers", "stages:"]
    for name, source in names(n):
        sql = f"SELECT text FROM {source} ORDER BY text" if source else f"SELECT '{name}' AS text"
        lines.append(f'  {name}: {{op: sql, with: {{sql: "{sql}"}}}}')
    (folder / "layers.yaml").write_text("\n".join(lines) + "\n")
    return [FUSELINE, "run", "layers.yaml"], [FUSELINE, "plan", "layers.yaml"]


def fuseline_matrix(folder, n):
    """Ten stages of many instances each, for sizes at which nobody writes names."""
    (folder / "layers.yaml").write_text(f"""\
name: matrix
stages:
  s0: {{op: sql, matrix: {{i: {list(range(n // WIDTH))}}}, with: {{sql: "SELECT '${{i}}' AS text"}}}}
""" + "".join(f"""\
  s{k}: {{op: sql, matrix: {{i: {list(range(n // WIDTH))}}}, inputs: {{s{k - 1}: s{k - 1}}}, with: {{sql: "SELECT text FROM s{k - 1} ORDER BY text"}}}}
""" for k in range(1, WIDTH)))
    return [FUSELINE, "run", "layers.yaml"], [FUSELINE, "plan", "layers.yaml"]


def hamilton(folder, n):
    functions = []
    for name, source in names(n):
        argument = f"{source}: str" if source else ""
        functions.append(f"def {name}({argument}) -> str:\n    return {source or repr(name)}\n\n")
    (folder / "layers.py").write_text("\n".join(functions))
    last = [name for name, _ in names(n)][-WIDTH:]
    (folder / "main.py").write_text(
        "import layers\nfrom hamilton import driver\n"
        "d = driver.Builder().with_modules(layers).with_cache(path='cache').build()\n"
        f"d.execute({last})\n"
    )
    return [PEERS / "python", "main.py"], None


def snakemake(folder, n):
    rules = [f"rule all:\n    input: {['out/' + name for name, _ in names(n)][-WIDTH:]}\n"]
    for name, source in names(n):
        if source:
            rules.append(f"rule {name}:\n    input: 'out/{source}'\n    output: 'out/{name}'\n"
                         "    run:\n        open(output[0], 'w').write(open(input[0]).read())\n")
        else:
            rules.append(f"rule {name}:\n    output: 'out/{name}'\n    run:\n        open(output[0], 'w').write('{name}')\n")
    (folder / "Snakefile").write_text("\n".join(rules))
    return [PEERS / "snakemake", "-q", "all", "-c", str(os.cpu_count())], None


def redun(folder, n):
    (folder / "layers.py").write_text(f"""\
from redun import task
redun_namespace = "layers"
@task()
def make(name):
    return name
@task()
def copy(layer, text):
    return text
@task()
def main():
    ends = []
    for place in range({WIDTH}):
        text = make(f"s0_{{place}}")
        for layer in range(1, {n // WIDTH}):
            text = copy(layer, text)
        ends.append(text)
    return ends
""")
    return [PEERS / "redun", "run", "layers.py", "main"], None


def dvc(folder, n):
    stages = ["stages:"]
    for name, source in names(n):
        deps = f"\n    deps: [out/{source}]" if source else ""
        cmd = f"cp out/{source} out/{name}" if source else f"printf {name} > out/{name}"
        stages.append(f"  {name}:\n    cmd: {cmd}{deps}\n    outs: [out/{name}]")
    (folder / "dvc.yaml").write_text("\n".join(stages) + "\n")
    (folder / "out").mkdir()
    environment = {**os.environ, "PATH": f"{PEERS}:{os.environ['PATH']}"}
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    subprocess.run([PEERS / "dvc", "init", "-q"], cwd=folder, check=True, env=environment)
    return [PEERS / "dvc", "repro", "-q"], None


def measure(command, folder):
    """Seconds and MiB; the command's own exit codes 0 and 5 (work found) are fine."""
    with open(folder / "log", "ab") as log:
        start = time.perf_counter()
        process = subprocess.Popen([str(part) for part in command], cwd=folder, stdout=log, stderr=log,
                                   env={**os.environ, "FUSELINE_STORE": "store"})
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
    code = os.waitstatus_to_exitcode(status)
    process.returncode = code
    if code not in (0, 5):
        sys.exit(f"{command} failed with {code}:\n{(folder / 'log').read_text()[-2000:]}")
    return seconds, usage.ru_maxrss / 1024


def row(system, make, n, runs, first_runs):
    firsts, noops, plans = [], [], []
    for attempt in range(first_runs):
        folder = pathlib.Path(tempfile.mkdtemp(prefix="layers-"))
        run, plan = make(folder, n)
        if plan and attempt == 0:
            plans.append(measure(plan, folder))
        firsts.append(measure(run, folder))
        if attempt == 0:
            noops = [measure(run, folder) for _ in range(runs)]
        LEFT.append(folder)
    middle = lambda pairs, i: statistics.median(pair[i] for pair in pairs)
    plan = f"{middle(plans, 0):.3f}" if plans else ""
    print(f"| {system} | {n:,} | {middle(firsts, 0):.2f} | {middle(firsts, 1):.0f} | {middle(noops, 0) * 1000:.0f} "
          f"| {middle(noops, 1):.0f} | {plan} |", flush=True)
    return middle(noops, 0), middle(firsts, 0)


# Removed at the end: ext4 looks for room among inodes that were freed in the last
# minutes, so that whatever makes files right after a large removal is slow.
LEFT = []


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("sizes", nargs="*", type=int, default=[20, 1000, 10000])
    parser.add_argument("--runs", type=int, default=11, help="runs with nothing to do")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--without", action="append", default=[], help="a peer to leave out")
    options = parser.parse_args()
    print(f"`python3 benches/engine.py {' '.join(sys.argv[1:])}`\n")
    print(f"{datetime.date.today()}, {os.cpu_count()} cores, {platform.machine()}\n")
    print("| system | stages | first run, s | MiB | nothing to do, ms | MiB | plan of an empty store, s |")
    print("|---|---|---|---|---|---|---|")
    ratios = []
    for n in options.sizes:
        make = fuseline if n <= 10000 else fuseline_matrix
        ours = row("fuseline", make, n, options.runs, 3 if n <= 1000 else 1)
        if options.no_peers or n > 1000:
            continue
        for peer, most in ((hamilton, 1000), (snakemake, 1000), (redun, 1000), (dvc, 200)):
            if peer.__name__ in options.without:
                continue
            if not (PEERS / {"hamilton": "python"}.get(peer.__name__, peer.__name__)).exists():
                print(f"{peer.__name__} is not there: make peers", file=sys.stderr)
                continue
            theirs = row(peer.__name__, peer, min(n, most), 3, 1)
            ratios.append((peer.__name__, min(n, most), theirs[0] / ours[0], theirs[1] / ours[1]))
    if ratios:
        print("\n| peer | stages | its time with nothing to do / ours | its first run / ours |\n|---|---|---|---|")
        for name, n, noop, first in ratios:
            print(f"| {name} | {n:,} | {noop:.0f} | {first:.1f} |")
    for folder in LEFT:
        shutil.rmtree(folder)


main()
