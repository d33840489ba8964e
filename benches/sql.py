#!/usr/bin/env python3
"""Measures `fuseline sql` over a large table of responses on the very same
Parquet files as three peers: DataFusion as a program that registers the files,
runs one query and ends (benches/datafusion.rs, which this builds), and the
packages `datafusion` and `duckdb` in .peers/venv (make peers). Build first:
cargo build --release.

    python3 benches/sql.py                     # ten million responses
    python3 benches/sql.py --rows 200000       # a try
    python3 benches/sql.py --folder DIR        # keep the data there and find it again

Ours is the whole process, with the pipeline read and the store looked through,
and so is DataFusion's program; the packages have the query alone on the clock,
in a process that runs and knows its tables. Prints Markdown: medians."""

import argparse
import datetime
import json
import os
import pathlib
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
FUSELINE = ROOT / "target/release/fuseline"
SOURCES = ["llama", "qwen", "gemma", "mistral"]
SAMPLES = 5
PIPELINE = """\
name: responses
stages:
  responses: {op: load, with: {path: responses.parquet, as: response}}
  prompts: {op: load, with: {path: prompts.parquet}}
"""
# Name, and the query for us and DataFusion, and for DuckDB where it says it otherwise.
QUERIES = [
    ("group by source",
     "SELECT source, count(*) AS n, avg(n_tokens) AS tokens FROM responses GROUP BY source ORDER BY source", None),
    ("percentile of length by source",
     "SELECT source, approx_percentile_cont(0.9) WITHIN GROUP (ORDER BY character_length(text)) AS p90 "
     "FROM responses GROUP BY source ORDER BY source",
     "SELECT source, approx_quantile(length(text), 0.9) AS p90 FROM responses GROUP BY source ORDER BY source"),
    ("join on prompt",
     "SELECT p.domain, r.source, count(*) AS n, avg(r.n_tokens) AS tokens FROM responses r "
     "JOIN prompts p ON r.prompt_id = p.prompt_id GROUP BY p.domain, r.source ORDER BY p.domain, r.source", None),
]


def generate(folder, rows):
    """Responses to rows / 20 prompts: four sources, five samples each."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    draw = np.random.default_rng(7)
    n_prompts = max(1, rows // (len(SOURCES) * SAMPLES))
    words = np.array([f"w{i:04}" for i in range(5000)])
    texts = np.array([" ".join(words[draw.integers(0, 5000, n)]) for n in draw.integers(5, 60, 20000)])
    ids = np.array([f"{i:016x}" for i in draw.permutation(n_prompts)])
    pq.write_table(pa.table({"prompt_id": ids, "domain": np.array(["math", "code", "chat"])[np.arange(n_prompts) % 3]}),
                   folder / "prompts.parquet")
    turn = pa.struct([("role", pa.string()), ("content", pa.string())])
    writer = None
    for start in range(0, n_prompts, 25000):
        some = ids[start:start + 25000]
        n = len(some) * len(SOURCES) * SAMPLES
        prompt_id = np.repeat(some, len(SOURCES) * SAMPLES)
        turns = pa.StructArray.from_arrays([pa.array(["user"] * n), pa.array(np.char.add("question ", prompt_id))],
                                           fields=list(turn))
        table = pa.table({
            "prompt_id": prompt_id,
            "messages": pa.ListArray.from_arrays(pa.array(np.arange(n + 1), pa.int32()), turns),
            "source": np.tile(np.repeat(SOURCES, SAMPLES), len(some)),
            "sample": np.tile(np.arange(SAMPLES), len(some) * len(SOURCES)),
            "text": texts[draw.integers(0, len(texts), n)],
            "finish_reason": np.where(draw.random(n) < 0.9, "stop", "length"),
            "n_tokens": draw.integers(5, 60, n),
            "seed": draw.integers(0, 2**62, n),
        })
        writer = writer or pq.ParquetWriter(folder / "responses.parquet", table.schema, compression="zstd")
        writer.write_table(table)
    writer.close()


def fuseline(folder, *arguments):
    start = time.perf_counter()
    done = subprocess.run([FUSELINE, *arguments], cwd=folder, capture_output=True, text=True,
                          env={**os.environ, "FUSELINE_STORE": "store"})
    if done.returncode:
        sys.exit(f"fuseline {arguments} failed:\n{done.stderr}")
    return time.perf_counter() - start, done.stdout


def datafusion_program():
    """Builds DataFusion's program and says where it is."""
    command = ["cargo", "bench", "--workspace", "--bench", "datafusion", "--no-run", "--message-format", "json"]
    built = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    messages = [json.loads(line) for line in built.splitlines() if line.startswith("{")]
    return next(m["executable"] for m in messages if m.get("executable") and m["target"]["name"] == "datafusion")


def peers(files):
    """A function of a query for each peer that is there."""
    program, named = datafusion_program(), [f"{name}={path}" for name, path in files.items()]
    found = {"datafusion": lambda ours, _: subprocess.run([program, ours, *named], check=True, capture_output=True)}
    try:
        import datafusion

        context = datafusion.SessionContext(datafusion.SessionConfig().with_target_partitions(os.cpu_count()))
        for name, path in files.items():
            context.register_parquet(name, str(path))
        found[f"package datafusion {datafusion.__version__}"] = lambda ours, _: context.sql(ours).collect()
    except ImportError:
        print("datafusion is not there: make peers", file=sys.stderr)
    try:
        import duckdb

        for name, path in files.items():
            duckdb.sql(f"CREATE VIEW {name} AS SELECT * FROM read_parquet('{path}')")
        found[f"package duckdb {duckdb.__version__}"] = lambda ours, theirs: duckdb.sql(theirs or ours).fetchall()
    except ImportError:
        print("duckdb is not there: make peers", file=sys.stderr)
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", type=pathlib.Path)
    options = parser.parse_args()
    folder = options.folder or pathlib.Path(tempfile.mkdtemp(prefix="sql-"))
    if not (folder / "responses.parquet").exists():
        folder.mkdir(exist_ok=True)
        generate(folder, options.rows)
    (folder / "p.yaml").write_text(PIPELINE)
    loaded, _ = fuseline(folder, "run", "p.yaml")
    files = {name: folder / fuseline(folder, "path", "p.yaml", name)[1].strip() / "data.parquet"
             for name in ("responses", "prompts")}
    systems = {"fuseline": lambda ours, _: fuseline(folder, "sql", "p.yaml", ours, "--format", "csv"), **peers(files)}

    print(f"`python3 benches/sql.py {' '.join(sys.argv[1:])}`\n")
    size = files["responses"].stat().st_size / 2**30
    print(f"{datetime.date.today()}, {os.cpu_count()} cores, {platform.machine()}; {options.rows:,} rows, "
          f"{size:.2f} GiB of Parquet; seconds\n")
    print("| query | " + " | ".join(systems) + " | ours / theirs |\n|---|" + "---|" * (len(systems) + 1))
    for name, ours, theirs in QUERIES:
        seconds = {system: [] for system in systems}
        for _ in range(options.runs):
            for system, query in systems.items():
                start = time.perf_counter()
                query(ours, theirs)
                seconds[system].append(time.perf_counter() - start)
        middle = {system: statistics.median(all) for system, all in seconds.items()}
        ratios = ", ".join(f"{middle['fuseline'] / middle[system]:.2f}" for system in list(systems)[1:])
        print(f"| {name} | " + " | ".join(f"{middle[system]:.2f}" for system in systems) + f" | {ratios} |", flush=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(f"\nLoading both tables into the store took {loaded:.0f} s; the largest process of ours held {peak:.1f} GiB.")


main()
