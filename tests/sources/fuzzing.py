"""Damaged input files by the thousand, and a process that must survive them.

Case ``number`` of a kind is always the same file: everything random about it comes from ``Random("kind:number")``. Run one as
``python tests/sources/fuzzing.py KIND NUMBER 1``. In a process of its own, whose address space may grow by 200 MiB and which
is killed after 20 s without a new case, each is opened and some rows are read. Only our errors may come of it, within 2 s of
processor time.
"""

from __future__ import annotations

import json
import os
import pickletools
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import container_files as containers
import numpy as np
import sbs_files
import torch_files as torch

from streamconv import dequant, inspect
from streamconv import sbs as sbs_types
from streamconv.check import check_file
from streamconv.errors import StreamconvError
from streamconv.models.gemma_cpp.hugging_face import as_hugging_face
from streamconv.sources import open_checkpoint

MEMORY_BYTES = 200 << 20
CASE_S = 2.0
HANG_S = 20
#: files of a case by name, and the one to open ("" for the folder)
Case = tuple[dict[str, bytes], str]

EDGES = [
    0,
    1,
    2,
    0x7F,
    0x80,
    0xFF,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    1 << 40,
    (1 << 63) - 1,
    1 << 63,
    (1 << 64) - 1,
]
VALUES: list[Any] = [
    *EDGES, -1, 1.5, 1e308, float("nan"), float("inf"), 10**30, True, None, "", "a", "../x", "\0", "\ud800", "F32", "U8", "F4",
    [], [1], [-1], [0, 1 << 62], [1 << 32, 1 << 32], {}, {"a": 1}, [[[]]], "x" * 2000, [1] * 100,
]  # fmt: skip


# ---- changing bytes and trees


def damaged(r: random.Random, raw: bytes) -> bytes:
    """``raw`` with one to four changes."""
    data = bytearray(raw)
    for _ in range(r.choice([1, 1, 1, 2, 3, 4])):
        at = r.randrange(len(data) + 1)
        n = r.choice([1, 1, 2, 4, 8, 16, 40])
        how = r.randrange(8)
        if how == 0 and at < len(data):
            data[at] ^= 1 << r.randrange(8)
        elif how == 1 and at < len(data):
            data[at] = r.randrange(256)
        elif how == 2:
            size = r.choice([1, 2, 4, 8])
            value = r.choice(EDGES) + r.choice([-1, 0, 0, 1])
            data[at : at + size] = (value % (1 << 8 * size)).to_bytes(size, r.choice(["little", "little", "big"]))
        elif how == 3:
            del data[at : at + n]
        elif how == 4:
            data[at:at] = r.randbytes(n)
        elif how == 5:
            other = r.randrange(len(data) + 1)
            data[at:at] = data[other : other + n]
        elif how == 6:
            other = r.randrange(len(data) + 1)
            data[at : at + n] = data[other : other + n]
        elif r.random() < 0.3:
            del data[at:]
    return bytes(data)


def changed_tree(r: random.Random, tree: Any) -> Any:
    """A copy of nested dictionaries and lists with something in it replaced, left out or repeated."""
    spots: list[tuple[Any, Any]] = []

    def walk(node: Any) -> Any:
        if isinstance(node, dict):
            copy: Any = {key: walk(value) for key, value in node.items()}
            spots.extend((copy, key) for key in copy)
        elif isinstance(node, list):
            copy = [walk(value) for value in node]
            spots.extend((copy, key) for key in range(len(copy)))
        else:
            copy = node
        return copy

    root = walk(tree)
    for _ in range(r.choice([1, 1, 2, 3])):
        holder, key = r.choice(spots)
        how = r.randrange(4)
        if isinstance(holder, dict) and key not in holder:
            continue
        if how == 0 and isinstance(holder, dict):
            del holder[key]
        elif how == 1 and isinstance(holder, dict):
            holder[r.choice(["", "a", key + "x", "__metadata__", "dtype"])] = holder.pop(key)
        elif how == 2 and isinstance(holder, list) and key < len(holder):
            holder.insert(r.randrange(len(holder) + 1), holder[key])
        elif isinstance(holder, dict) or key < len(holder):
            value = holder[key]
            holder[key] = (
                value + r.choice([-8, -1, 1, 4, 64]) if type(value) is int and r.random() < 0.5 else r.choice(VALUES)
            )
    return root


def changed_json(r: random.Random, tree: Any) -> bytes:
    text = json.dumps(changed_tree(r, tree)).encode()
    return damaged(r, text) if r.random() < 0.2 else text


# ---- kinds

HEADER = {
    "__metadata__": {"format": "pt"},
    "a.weight": {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]},
    "b.weight": {"dtype": "BF16", "shape": [2, 2, 4], "data_offsets": [64, 96]},
    "c": {"dtype": "F8_E4M3", "shape": [16], "data_offsets": [96, 112]},
    "d": {"dtype": "I64", "shape": [], "data_offsets": [112, 120]},
    "e": {"dtype": "U8", "shape": [0, 3], "data_offsets": [120, 120]},
}
DATA = bytes(range(120))


def safetensors(r: random.Random) -> Case:
    if r.random() < 0.4:
        raw = damaged(r, containers.safetensors_bytes(HEADER, DATA))
    else:
        length = r.choice([*EDGES, 8, 100_000_001]) if r.random() < 0.05 else None
        raw = containers.safetensors_bytes(changed_json(r, HEADER), DATA, length)
    return {"x.safetensors": raw}, "x.safetensors"


def index(r: random.Random) -> Case:
    is_torch = r.random() < 0.5
    name, ending = (
        ("pytorch_model.bin.index.json", "bin") if is_torch else ("model.safetensors.index.json", "safetensors")
    )
    files = [f"part-{k}.{ending}" for k in range(3)]
    tree = {"metadata": {"total_size": 192}, "weight_map": {f"w{k}": file for k, file in enumerate(files)}}
    made = {
        "config.json": b'{"architectures": ["X"]}' if r.random() < 0.9 else changed_json(r, {"architectures": ["X"]})
    }
    for k, file in enumerate(files):
        tensors = {f"w{k}": ("F32", np.zeros((4, 4), "<f4"))}
        header = {f"w{k}": {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]}}
        made[file] = torch.checkpoint(tensors) if is_torch else containers.safetensors_bytes(header, bytes(64))
    made[name] = damaged(r, json.dumps(tree).encode()) if r.random() < 0.4 else changed_json(r, tree)
    if r.random() < 0.2:
        del made[r.choice(files)]
    return made, "" if r.random() < 0.8 else name


def gguf(r: random.Random) -> Case:
    value = containers.value
    pairs = [
        ("general.architecture", value("STRING", "llama")), ("general.alignment", value("UINT32", 32)),
        ("llama.block_count", value("UINT32", 1)), ("tokenizer.ggml.tokens", value("STRINGS", ["a", "b", "c"])),
        ("tokenizer.ggml.token_type", value("INT32S", [1, 1, 3])), ("x", value("FLOAT32", 0.5)), ("y", value("BOOL", True)),
    ]  # fmt: skip
    infos = [
        containers.tensor_info("a", (8, 4), 0, 0),
        containers.tensor_info("b", (32, 2), 8, 128),
        containers.tensor_info("c", (32,), 1, 224),
    ]
    return {"x.gguf": damaged(r, containers.gguf_bytes(pairs, infos, bytes(288)))}, "x.gguf"


FLOATS = torch.storage("FloatStorage", "0", 16)
TREE = {
    "w": torch.tensor(FLOATS, (4, 4)),
    "t": torch.tensor(FLOATS, (4, 4), (1, 4)),
    "v": torch.tensor(FLOATS, (2, 2, 2), (8, 2, 1), 1),
    "h": torch.tensor(torch.storage("HalfStorage", "1", 8), (8,)),
    "f8": torch.tensor(torch.storage("UntypedStorage", "2", 16), (4, 4), dtype="float8_e4m3fn"),
    "model": {
        "p": torch.call("torch._utils", "_rebuild_parameter", torch.tensor(FLOATS, (0, 3)), True, {}),
        "n": [1, 2.5],
    },
}
PICKLE = torch.program(TREE)
STORAGES = {"0": bytes(range(64)), "1": bytes(16), "2": bytes(range(16))}
LEGACY_TREE = {"w": TREE["w"], "t": TREE["t"], "h": TREE["h"], "x": {"step": 7}}
LEGACY = [("0", 16, STORAGES["0"]), ("1", 8, STORAGES["1"])]


def opcodes(pickle: bytes) -> list[bytes]:
    """A pickle cut before each opcode."""
    cuts = [at or 0 for _, _, at in pickletools.genops(pickle)] + [len(pickle)]
    return [pickle[a:b] for a, b in pairwise(cuts)]


WORDS = opcodes(PICKLE)
WORDS += [
    *(bytes([c]) for c in b"(N0tseaubRQ}])1.\x85\x86\x87\x88\x89\x94\x93"), b"q\0", b"h\0", b"h\1", b"q\1", b"K\4", b"K\0",
    torch.code("0"), torch.code(-1), torch.code(1 << 62), torch.code(1 << 70), torch.code((4, 4)), torch.code([]), FLOATS,
    TREE["w"], torch.code({}), torch.named("torch", "Size"), torch.named("_codecs", "encode"), torch.named("os", "system"),
    torch.code("latin1"), torch.named("collections", "OrderedDict"), b"\x95" + bytes(8), b"\x80\4", b"r\xff\xff\xff\xff",
]  # fmt: skip


def changed_program(r: random.Random, pickle: bytes) -> bytes:
    """A pickle with opcodes left out, repeated, exchanged and put in, or of random opcodes altogether."""
    if r.random() < 0.25:
        return torch.PROTOCOL + b"".join(r.choices(WORDS, k=r.randrange(60))) + b"."
    parts = opcodes(pickle)
    for _ in range(r.choice([1, 1, 2, 3, 6])):
        at = r.randrange(len(parts))
        n = r.choice([1, 1, 2, 5, 20])
        how = r.randrange(4)
        if how == 0:
            parts[at : at + n] = r.choices(WORDS, k=r.randrange(3))
        elif how == 1:
            parts[at:at] = parts[at : at + n] * r.choice([1, 2, 50])
        elif how == 2:
            other = r.randrange(len(parts))
            parts[at], parts[other] = parts[other], parts[at]
        else:
            parts[at] = damaged(r, parts[at])
    return b"".join(parts)


def torch_zip(r: random.Random) -> Case:
    return {"x.bin": damaged(r, torch.archive(PICKLE, STORAGES))}, "x.bin"


def torch_pickle(r: random.Random) -> Case:
    pickle = changed_program(r, PICKLE) if r.random() < 0.7 else damaged(r, PICKLE)
    return {"x.pt": torch.archive(pickle, STORAGES)}, "x.pt"


def torch_legacy(r: random.Random) -> Case:
    whole = torch.program(LEGACY_TREE)
    if r.random() < 0.5:
        return {"x.pth": damaged(r, torch.stream(whole, LEGACY))}, "x.pth"
    return {"x.pth": torch.stream(changed_program(r, whole), LEGACY)}, "x.pth"


STATE = {
    "quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [16, 32], "nested_blocksize": 256,
    "nested_dtype": "float32", "nested_offset": 0.25,
}  # fmt: skip
NF4 = (
    "bf800000 bf3239b1 bf066b30 beca32a0 be91a24d be3d353f bdba7871 00000000 3da2faff 3e24cae3 3e7c04dd 3ead033a 3ee1a4b8"
    " 3f1007ab 3f3913b3 3f800000"
)
QUANTIZED = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama",
    "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
}  # fmt: skip


def quant_state(r: random.Random) -> Case:
    blob = changed_json(r, STATE) if r.random() < 0.7 else damaged(r, json.dumps(STATE).encode())
    codebook = np.array([int(word, 16) for word in NF4.split()], "<u4").tobytes()
    parts = {
        "w.weight": ("U8", [256, 1], bytes(range(256))),
        "w.weight.absmax": ("U8", [8], bytes(range(8))),
        "w.weight.quant_map": ("F32", [16], codebook),
        "w.weight.nested_absmax": ("F32", [1], struct.pack("<f", 2)),
        "w.weight.nested_quant_map": ("F32", [256], np.linspace(-1, 1, 256, dtype="<f4").tobytes()),
        "w.weight.quant_state.bitsandbytes__nf4": ("U8", [len(blob)], blob),
    }
    if r.random() < 0.3:
        parts = damaged_parts(r, parts)
    header, data = {}, b""
    for name, (dtype, shape, raw) in parts.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    config = json.dumps(QUANTIZED).encode() if r.random() < 0.8 else changed_json(r, QUANTIZED)
    return {"config.json": config, "model.safetensors": containers.safetensors_bytes(header, data)}, ""


def damaged_parts(
    r: random.Random, parts: dict[str, tuple[str, list[int], bytes]]
) -> dict[str, tuple[str, list[int], bytes]]:
    """The tensors with one of them gone, of another type, or shorter."""
    name = r.choice(list(parts))
    dtype, _, raw = parts[name]
    how = r.randrange(4)
    if how == 0:
        return {key: value for key, value in parts.items() if key != name}
    if how == 1:
        raw = damaged(r, raw)
    elif how == 2:
        raw = raw[: r.randrange(len(raw) + 1)]
    else:
        dtype = r.choice(["U8", "I8", "F32", "F16", "BF16", "I32", "F8_E4M3"])
    size = {"U8": 1, "I8": 1, "F8_E4M3": 1, "F32": 4, "I32": 4}.get(dtype, 2)
    raw = raw[: len(raw) // size * size]
    return {**parts, name: (dtype, [len(raw) // size], raw)}


SBS = (("gemma3", "split"), ("paligemma", "exporter"))
#: keys that older files have: of Gemma 3 270M there is too little here, which is refused after they were read
PREFIXED = {"Bc_embedding": bytes(64), "$att_ein_17": bytes(64), "Bkey_norm_0": bytes(64), "Fscales": bytes(16)}


@cache
def sbs_toy(kind: str, layout: str) -> sbs_files.Toy:
    """A model with a matrix in every type, decoded once: what compiles kernels is not what is measured."""
    toy = sbs_files.toy(kind, layout)
    for key, type_ in {"c_embedding": "SFP", "linear_w_0": "NUQ", "linear_w_1": "I8"}.items():
        rows, cols = toy.toc[key][-4:-2]
        data, _ = sbs_types.encode(np.linspace(-1, 1, rows * cols, dtype=np.float32), type_)
        sbs_types.decode(data, type_, rows * cols)
        toy.blobs[key], toy.toc[key] = data.tobytes(), sbs_files.entry(key, sbs_files.TYPES[type_], rows, cols)
    return toy


def sbs(r: random.Random) -> Case:
    toy = sbs_toy(*r.choice(SBS))
    blobs = toy.everything() if r.random() < 0.9 else {**PREFIXED, "tokenizer": b"unavailable"}
    if r.random() < 0.5:
        key = r.choice([key for key in ("config", "toc", "toc", "tokenizer", "Fscales") if key in blobs])
        blobs = {**blobs, key: damaged(r, blobs[key]) or b"x"}
    data = sbs_files.store(blobs, r.choice([1, 2]), r.random() < 0.5)
    if r.random() < 0.6:
        at, size = (0, 32 * len(blobs) + 16) if data[4] else (len(data) - 32 * len(blobs) - 16, len(data))
        data = data[:at] + damaged(r, data[at : at + size]) + data[at + size :]
    return {"x.sbs": data}, "x.sbs"


KINDS: dict[str, Callable[[random.Random], Case]] = {
    "safetensors": safetensors,
    "index": index,
    "gguf": gguf,
    "torch_zip": torch_zip,
    "torch_pickle": torch_pickle,
    "torch_legacy": torch_legacy,
    "quant_state": quant_state,
    "sbs": sbs,
}


# ---- running


def attempt(path: Path, io: str) -> str:
    """Open ``path`` and read some rows: "accepted", "refused", or what went wrong."""
    try:
        stored = open_checkpoint(path, io)  # type: ignore[arg-type]
        if path.suffix == ".sbs":
            check_file(path)
            json.dumps(inspect.describe(stored))
        tensors = dequant.decoded(as_hugging_face(stored)).tensors
        for name in list(tensors)[:8]:
            rows = tensors[name]
            n_rows = prod(rows.shape[:-1])
            for start, stop in {(0, min(2, n_rows)), (max(0, n_rows - 1), n_rows)}:
                rows.stored(start, stop)
                rows.prefetch(start, stop)
                rows.read(start, stop)
                rows.release(start, stop)
    except StreamconvError as e:
        str(e).encode()
        return "refused" if e.exit_code in (65, 66) else f"exit code {e.exit_code}: {e}"
    except Exception as e:  # MemoryError too
        return f"{type(e).__name__}: {e}"
    return "accepted"


def run(kind: str, first: int, count: int, timed: bool = True) -> dict[str, Any]:
    """Try the cases ``first .. first + count``; gives counts, what went wrong, and the worst time in seconds."""
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
    counts, wrong, worst = {"accepted": 0, "refused": 0}, [], 0.0
    try:
        for number in range(first, first + count):
            signal.alarm(HANG_S if timed else 0)
            print(number, end="\r", file=sys.stderr, flush=True)
            files, name = KINDS[kind](random.Random(f"{kind}:{number}"))
            case = folder / "case"
            case.mkdir()
            for file, raw in files.items():
                (case / file).write_bytes(raw)
            begin = time.process_time()
            outcome = attempt(case / name if name else case, "pread" if number % 2 else "mmap")
            taken = time.process_time() - begin
            worst = max(worst, taken)
            if outcome in counts:
                counts[outcome] += 1
            if outcome not in counts or (timed and taken > CASE_S):
                wrong.append([number, outcome[:300], round(taken, 2)])
            shutil.rmtree(case)
    finally:
        signal.alarm(0)
        shutil.rmtree(folder)
    return {"kind": kind, **counts, "wrong": wrong, "worst_s": round(worst, 3)}


def main() -> None:
    kind, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    run(kind, 0, 20, timed=False)  # imports and compiled code are not what is measured
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY_BYTES, mapped + MEMORY_BYTES))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = run(kind, first, count)
    found["grown_mib"] = round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, 1)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
