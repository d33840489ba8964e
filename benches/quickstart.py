#!/usr/bin/env python3
"""Measures the quickstart: wall time and peak memory of the first run, and wall
time of a run with nothing to do. Build first: cargo build --release.

    python3 benches/quickstart.py            # the shipped seed
    python3 benches/quickstart.py 7 8 9      # also the figures over seeds

Prints Markdown. Memory is the sum over all processes of the run of their
proportional set size, sampled five times a second."""

import csv
import io
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
FUSELINE = ROOT / "target/release/fuseline"
PIPELINE = ROOT / "pipelines/quickstart.yaml"


def processes(root):
    """The process and all its descendants."""
    children = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = open(f"/proc/{entry}/stat").read()
            except OSError:
                continue
            children.setdefault(int(stat.rsplit(")", 1)[1].split()[1]), []).append(int(entry))
    found, open_ = [], [root]
    while open_:
        pid = open_.pop()
        found.append(pid)
        open_ += children.get(pid, [])
    return found


def memory(root):
    total = 0
    for pid in processes(root):
        try:
            for line in open(f"/proc/{pid}/smaps_rollup"):
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
        except OSError:
            pass
    return total


def run(pipeline, store):
    """Wall seconds, peak bytes."""
    started = time.monotonic()
    child = subprocess.Popen(
        [FUSELINE, "--store", store, "run", pipeline], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=ROOT
    )
    errors = []
    reader = threading.Thread(target=lambda: errors.append(child.stderr.read()))
    reader.start()
    peak = 0
    while child.poll() is None:
        peak = max(peak, memory(child.pid))
        time.sleep(0.2)
    seconds = time.monotonic() - started
    reader.join()
    if child.returncode != 0:
        sys.exit(errors[0].decode())
    return seconds, peak


def idle(pipeline, store):
    """Wall seconds of a run with nothing to do."""
    started = time.monotonic()
    subprocess.run(
        [FUSELINE, "--store", store, "run", pipeline], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True, cwd=ROOT
    )
    return time.monotonic() - started


def figures(pipeline, store):
    """Model to task to value."""
    out = subprocess.run(
        [FUSELINE, "--store", store, "sql", pipeline, "SELECT model, task, value FROM evaluated ORDER BY model, task", "--format", "csv"],
        capture_output=True, check=True, text=True, cwd=ROOT,
    ).stdout
    table = {}
    for row in csv.DictReader(io.StringIO(out)):
        table.setdefault(row["model"], {})[row["task"]] = float(row["value"])
    return table


def main():
    seeds = [int(seed) for seed in sys.argv[1:]]
    text = PIPELINE.read_text()
    shipped = next(int(line.split()[1]) for line in text.splitlines() if line.startswith("seed:"))
    seeds = seeds or [shipped]
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    print(f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, {memory_bytes / 2**30:.0f} GiB, {platform.machine()}\n")
    print("| seed | first run, s | peak, GiB | nothing to do, median of 11, s |")
    print("|---|---|---|---|")
    tables = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            pipeline = pathlib.Path(folder) / f"seed{seed}.yaml"
            pipeline.write_text(text.replace(f"seed: {shipped}\n", f"seed: {seed}\n", 1))
            store = pathlib.Path(folder) / f"store{seed}"
            seconds, peak = run(pipeline, store)
            again = statistics.median(idle(pipeline, store) for _ in range(11))
            print(f"| {seed} | {seconds:.0f} | {peak / 2**30:.2f} | {again:.3f} |", flush=True)
            tables.append(figures(pipeline, store))
    if len(seeds) > 1:
        tasks = sorted(tables[0]["target"])
        print("\nAccuracy in percent, mean ± sample deviation over the seeds:\n")
        print("| model | " + " | ".join(tasks) + " | mean |")
        print("|" + "---|" * (len(tasks) + 2))
        for model in sorted(tables[0], key=lambda m: statistics.mean(statistics.mean(t[m].values()) for t in tables)):
            cells = [[100 * t[model][task] for t in tables] for task in tasks]
            cells.append([100 * statistics.mean(t[model].values()) for t in tables])
            print(f"| {model} | " + " | ".join(f"{statistics.mean(c):.1f} ± {statistics.stdev(c):.1f}" for c in cells) + " |")


main()
