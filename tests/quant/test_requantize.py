"""The keys of a requantized file."""

from __future__ import annotations

import importlib.util
import json
import struct
from pathlib import Path

import numpy as np
import pytest

from streamconv.errors import UsageError
from streamconv.metadata import VALUE_TYPES, Metadata, Value
from streamconv.quant.filetypes import COPY, parse_file_type
from streamconv.quant.imatrix import Imatrix, load_imatrix
from streamconv.quant.mix import pruned_names
from streamconv.quant.requantize import parse_override, quantize_metadata

Q4_K_M = parse_file_type("Q4_K_M")


def source(**more: Value) -> Metadata:
    values = {
        "general.architecture": Value("STRING", "llama"),
        "general.file_type": Value("UINT32", 1),
        "llama.block_count": Value("UINT32", 4),
        "tokenizer.ggml.merges": Value("ARRAY", [], "STRING"),
    }
    return Metadata(values | {k.replace("__", "."): v for k, v in more.items()})


def imatrix(tmp_path: Path, dataset: str = "calib.txt", chunks: int = 3) -> Imatrix:
    blob = struct.pack("<ii", 1, 1) + b"a" + struct.pack("<iif", 1, 1, 1.0)
    path = tmp_path / "imatrix.dat"
    path.write_bytes(blob + struct.pack("<ii", chunks, len(dataset)) + dataset.encode())
    return load_imatrix(path)


def plain(m: Metadata) -> list[tuple[str, object]]:
    return [(k, v.value) for k, v in m.items()]


def test_what_is_set_anew_moves_to_the_end_and_all_else_stays() -> None:
    before = source()
    after = quantize_metadata(before, Q4_K_M)
    assert plain(after) == [
        ("general.architecture", "llama"),
        ("llama.block_count", 4),
        ("tokenizer.ggml.merges", []),
        ("general.quantization_version", 2),
        ("general.file_type", 15),
    ]
    assert list(before.values) == list(source().values)


def test_a_copy_declares_what_its_source_declares_or_a_guess() -> None:
    keys = source(general__file_type=Value("UINT32", 32))
    assert quantize_metadata(keys, COPY).get("general.file_type") == 32
    keys.remove("general.file_type")
    assert quantize_metadata(keys, COPY, source_types=["F32", "Q4_K", "Q4_K"]).get("general.file_type") == 15 | 1024


def test_split_keys_and_other_alignments_go() -> None:
    keys = source(
        split__no=Value("UINT16", 0), split__count=Value("UINT16", 2), split__tensors__count=Value("INT32", 9)
    )
    assert not [k for k, _ in quantize_metadata(keys, Q4_K_M).items() if k.startswith("split")]
    for alignment in (32, 64):
        keys = source(general__alignment=Value("UINT32", alignment))
        assert ("general.alignment" in quantize_metadata(keys, Q4_K_M)) == (alignment == 32)


def test_overrides_imatrix_and_pruning_follow_in_this_order(tmp_path: Path) -> None:
    after = quantize_metadata(
        source(),
        Q4_K_M,
        overrides=[parse_override("general.name=str:"), parse_override("llama.rope.freq_base=float:5e5")],
        imatrix=imatrix(tmp_path),
        imatrix_file="runs/imatrix.dat",
        block_count=3,
    )
    assert plain(after)[3:] == [
        ("general.file_type", 15),
        ("general.name", ""),
        ("llama.rope.freq_base", 500000.0),
        ("quantize.imatrix.file", "runs/imatrix.dat"),
        ("quantize.imatrix.dataset", "calib.txt"),
        ("quantize.imatrix.entries_count", 1),
        ("quantize.imatrix.chunks_count", 3),
        ("llama.block_count", 3),
    ]


def test_unknown_datasets_and_chunks_are_not_written_and_long_names_are_cut(tmp_path: Path) -> None:
    after = quantize_metadata(source(), Q4_K_M, imatrix=imatrix(tmp_path, "", 0), imatrix_file="é" * 100)
    assert [k for k, _ in after.items() if k.startswith("quantize")] == [
        "quantize.imatrix.file",
        "quantize.imatrix.entries_count",
    ]
    assert after.get("quantize.imatrix.file") == "é" * 63


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("a.b=int:-5", Value("INT64", -5)),
        ("a.b=float:0.1", Value("FLOAT32", float(np.float32(0.1)))),
        ("a.b=bool:true", Value("BOOL", True)),
        ("a.b=bool:false", Value("BOOL", False)),
        ("a.b=str:x=y:z", Value("STRING", "x=y:z")),
    ],
)
def test_overrides_have_four_types(text: str, want: Value) -> None:
    assert parse_override(text) == ("a.b", want)


@pytest.mark.parametrize(
    "text",
    ["a", "a=1", "=int:1", "a=int:x", "a=int:4294967296", "a=float:", "a=bool:yes", "a=u8:1", "general.alignment=int:64",
     "a=str:" + "x" * 128, "k" * 128 + "=int:1"],
)  # fmt: skip
def test_malformed_overrides_are_usage_errors(text: str) -> None:
    with pytest.raises(UsageError):
        parse_override(text)


@pytest.mark.parametrize("name", ["llama16", "tied4", "moe8", "phi3x8"])
def test_keys_of_the_reference_files_come_out_in_order(reference: Path, tmp_path: Path, name: str) -> None:
    root = reference / "golden" / "quants"
    spec = importlib.util.spec_from_file_location("synth_model", root / "synth_model.py")
    assert spec
    assert spec.loader
    synth = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(synth)
    model = synth.MODELS[name]()
    synth.write_imatrix_gguf(model, tmp_path / "imatrix.gguf")
    types = {number: kind for kind, (number, _) in VALUE_TYPES.items()}
    original = Metadata()
    for key, number, value in model["kv"]:
        elem, value = (types[value[0]], value[1]) if isinstance(value, tuple) else ("", value)
        original.values[key] = Value(types[number], value, elem)
    for c in json.loads((root / "models" / f"{name}.json").read_text())["cases"]:
        o = c["options"]
        if c["result"] != "ok":
            continue
        before = quantize_metadata(original, parse_file_type("Q8_0")) if "source" in o else original
        after = quantize_metadata(
            before,
            COPY if o.get("copy") else parse_file_type(c["ftype"]),
            overrides=[
                parse_override(f"{k}={t}:{str(v).lower() if t == 'bool' else v}")
                for k, t, v in o.get("override_kv", [])
            ],
            imatrix=load_imatrix(tmp_path / "imatrix.gguf", exclude=[o["imatrix_drop"]] if "imatrix_drop" in o else ())
            if c["imatrix"]
            else None,
            imatrix_file="imatrix.gguf",
            block_count=pruned_names([n for n, *_ in model["tensors"]], o["prune"])[1] if "prune" in o else None,
        )
        label = f"{c['ftype']} {c['imatrix']} {o}"
        assert list(after.values) == c["kv_order"], label
        changed = {k: [VALUE_TYPES[v.type][0], v.value] for k, v in after.items() if before.values.get(k) != v}
        assert changed == c["kv_changed"], label
        assert sorted(set(before.values) - set(after.values)) == c["kv_removed"], label
