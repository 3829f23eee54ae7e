"""Runs llama.cpp's own quantizer on made-up models; started with the peers' Python, which has llama_cpp and gguf.

One JSON object per line in: ``{"arch", "keys": {name: [type, value]}, "tensors": [[name, shape, type]], "ftype": number,
"options": {…}, "imatrix": [names] | null}``; one out: ``{"tensors": [[name, type]], "keys": [[name, value]]}`` in file
order, or ``{"refused": why}``. Weights are zeros, importance weights are ones. Each case runs in a child, since the
reference sometimes ends the process.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import tempfile
from math import prod
from pathlib import Path
from typing import Any

import gguf
import llama_cpp.llama_cpp as llama
import numpy as np

Types = gguf.GGMLQuantizationType


class ImatrixData(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char_p), ("data", ctypes.POINTER(ctypes.c_float)), ("size", ctypes.c_size_t))


def write_model(path: Path, case: dict[str, Any]) -> None:
    writer = gguf.GGUFWriter(path, case["arch"])
    for key, (kind, value) in case["keys"].items():
        writer.add_key_value(key, value, gguf.GGUFValueType[kind])
    for name, shape, kind in case["tensors"]:
        data = np.zeros(shape, {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}[kind])
        writer.add_tensor(name, data, raw_shape=shape, raw_dtype=Types[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def quantize(case: dict[str, Any], source: Path, out: Path) -> int:
    o = case["options"]
    p = llama.llama_model_quantize_default_params()
    p.nthread, p.ftype = 1, case["ftype"]
    p.pure, p.only_copy = bool(o.get("pure")), bool(o.get("copy"))
    p.quantize_output_tensor = not o.get("leave_output")
    if "output_type" in o:
        p.output_tensor_type = Types[o["output_type"]]
    if "token_type" in o:
        p.token_embedding_type = Types[o["token_type"]]
    if "tensor_types" in o:
        rules = (llama.llama_model_tensor_override * (len(o["tensor_types"]) + 1))()
        for rule, (pattern, kind) in zip(rules, o["tensor_types"], strict=False):
            rule.pattern, rule.type = pattern.encode(), Types[kind]
        p.tt_overrides = rules
    if "prune" in o:
        p.prune_layers = (ctypes.c_int32 * (len(o["prune"]) + 1))(*o["prune"], -1)
    if "override_kv" in o:
        overrides = (llama.llama_model_kv_override * (len(o["override_kv"]) + 1))()
        for override, (key, kind, value) in zip(overrides, o["override_kv"], strict=False):
            override.key, override.tag = key.encode(), ["int", "float", "bool", "str"].index(kind)
            field = {"int": "val_i64", "float": "val_f64", "bool": "val_bool", "str": "val_str"}[kind]
            setattr(override.value, field, value.encode() if kind == "str" else value)
        p.kv_overrides = overrides
    if case["imatrix"] is not None:
        shapes = {name: shape for name, shape, _ in case["tensors"]}
        entries = (ImatrixData * (len(case["imatrix"]) + 1))()
        for entry, name in zip(entries, case["imatrix"], strict=False):
            size = prod(shapes[name][:-2]) * shapes[name][-1]
            entry.name, entry.size = name.encode(), size
            entry.data = (ctypes.c_float * size)(*[1.0] * size)
        p.imatrix = ctypes.cast(entries, type(p.imatrix))
    return int(llama.llama_model_quantize(str(source).encode(), str(out).encode(), ctypes.byref(p)))


def result(case: dict[str, Any], folder: Path) -> dict[str, Any]:
    source, out = folder / "source.gguf", folder / "out.gguf"
    write_model(source, case)
    out.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if quantize(case, source, out) == 0 else 1)
        finally:
            os._exit(2)
    _, status = os.waitpid(child, 0)
    if status:
        return {"refused": "error" if os.WIFEXITED(status) else "abort"}
    reader = gguf.GGUFReader(out)
    return {
        "tensors": [[t.name, t.tensor_type.name] for t in reader.tensors],
        "keys": [[f.name, f.contents()] for f in reader.fields.values() if not f.name.startswith("GGUF.")],
    }


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    with tempfile.TemporaryDirectory() as folder:
        for line in sys.stdin:
            answers.write(json.dumps(result(json.loads(line), Path(folder))) + "\n")


if __name__ == "__main__":
    main()
