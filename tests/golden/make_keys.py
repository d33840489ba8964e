"""Derives stage and definition keys without fuseline's code and checks or fills keys.json.

    pip install blake3
    python make_keys.py          # fails if a key differs
    python make_keys.py --fill   # writes the keys of new vectors

The encoding is described in src/contract/value.rs, the record in
src/engine/key.rs.
"""

import json
import pathlib
import struct
import sys

from blake3 import blake3

CONTEXT = "fuseline 2026 stage key v1"
DEFINITION = "fuseline 2026 definition key v1"
PATH = pathlib.Path(__file__).with_name("keys.json")


class Digest:
    def __init__(self, text):
        self.hash, size = text.split("-")
        self.size = int(size)


def text(value):
    raw = value.encode()
    return struct.pack(">Q", len(raw)) + raw


def encode(value):
    if value is None:
        return b"\x00"
    if value is False:
        return b"\x01"
    if value is True:
        return b"\x02"
    if isinstance(value, int):
        magnitude = abs(value)
        digits = magnitude.to_bytes((magnitude.bit_length() + 7) // 8, "big")
        return bytes([3, value < 0, len(digits)]) + digits
    if isinstance(value, float):
        return b"\x04" + struct.pack(">d", value + 0.0)
    if isinstance(value, str):
        return b"\x05" + text(value)
    if isinstance(value, list):
        return b"\x06" + struct.pack(">Q", len(value)) + b"".join(map(encode, value))
    if isinstance(value, dict):
        entries = sorted((key.encode(), key, item) for key, item in value.items())
        body = b"".join(text(key) + encode(item) for _, key, item in entries)
        return b"\x07" + struct.pack(">Q", len(value)) + body
    if isinstance(value, Digest):
        return b"\x08\x01" + bytes.fromhex(value.hash) + struct.pack(">Q", value.size)
    raise TypeError(type(value))


def record(vector):
    out = {
        "format": 1,
        "operator": {"name": vector["operator"], "version": vector["version"], "parts": dict(vector["parts"])},
        "params": vector["params"],
    }
    if vector["inputs"]:
        out["inputs"] = {}
        for port, sources in vector["inputs"]:
            bound = []
            for source in sources:
                if vector.get("definition"):
                    entry = dict(zip(("definition", "output"), source["definition"]))
                else:
                    entry = {"content": Digest(source["content"])}
                if source["label"] is not None:
                    entry["label"] = source["label"]
                if source["axes"]:
                    entry["axes"] = source["axes"]
                bound.append(entry)
            out["inputs"][port] = bound
    for parameter, digest in vector["files"]:
        out.setdefault("files", {}).setdefault(parameter, []).append(Digest(digest))
    if vector["seed"] is not None:
        out["seed"] = vector["seed"]
    if vector["numerics"] is not None:
        out["numerics"] = vector["numerics"]
    if vector.get("salt") is not None:
        out["salt"] = vector["salt"]
    return out


def main():
    vectors = json.loads(PATH.read_text())
    for vector in vectors:
        context = DEFINITION if vector.get("definition") else CONTEXT
        key = blake3(encode(record(vector)), derive_key_context=context).hexdigest()
        if vector.get("key") and vector["key"] != key:
            sys.exit(f"{vector['name']}: {vector['key']} is recorded, {key} derived")
        vector["key"] = key
    if "--fill" in sys.argv:
        PATH.write_text(json.dumps(vectors, indent=1, ensure_ascii=False) + "\n")
    print(f"{len(vectors)} keys agree")


main()
