"""A stage of `command_python.yaml`: keeps the shorter half of the examples and counts their letters."""

import argparse
import json
import os

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

arguments = argparse.ArgumentParser()
arguments.add_argument("--prefix", required=True)
arguments = arguments.parse_args()

# Where everything is; the same paths could be arguments, as {input.examples} and {output.rows}.
io = json.load(open(os.environ["FUSELINE_IO"]))
examples = pq.read_table(io["inputs"]["examples"]["path"])
print(json.dumps({"progress": {"done": 1, "total": 2, "unit": "tables"}}), flush=True)

letters = pc.utf8_length(examples["completion"])
shorter = examples.filter(pc.less_equal(letters, pc.quantile(letters, 0.5)[0]))
print(json.dumps({"note": f"{shorter.num_rows} of {examples.num_rows} examples are kept"}), flush=True)
pq.write_table(shorter, io["outputs"]["rows"]["path"])

figures = [
    {"model": "none", "task": f"{arguments.prefix} {name}", "metric": "letters", "value": pc.mean(column).as_py(),
     "stderr": None, "n": len(column), "seed": None}
    for name, column in [("all", letters), ("kept", pc.utf8_length(shorter["completion"]))]
]
pq.write_table(pa.Table.from_pylist(figures), io["outputs"]["figures"]["path"])
