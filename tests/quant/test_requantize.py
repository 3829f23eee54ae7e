"""The keys of a requantized file."""

from __future__ import annotations

import importlib.util
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamconv.errors import UsageError
from streamconv.metadata import VALUE_TYPES, Metadata, Value
from streamconv.quant.filetypes import COPY, parse_file_type
from streamconv.quant.imatrix import Imatrix, load_imatrix
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
        pruned=[2],
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


def test_what_is_said_of_each_block_is_said_of_those_that_are_left() -> None:
    keys = source(
        llama__block_count=Value("UINT32", 4),
        llama__attention__head_count_kv=Value("ARRAY", [1, 2, 3, 4], "INT32"),
        llama__rope__dimension_sections=Value("ARRAY", [11, 11, 10, 0], "INT32"),
        llama__leading_dense_block_count=Value("UINT32", 2),
        xielu__eps=Value("ARRAY", [0.1, 0.2, 0.3, 0.4], "FLOAT32"),
    )
    after = quantize_metadata(keys, Q4_K_M, pruned=[1, 2])
    assert after.get("llama.block_count") == 2
    assert after.get("llama.attention.head_count_kv") == [1, 4]
    assert after.get("llama.rope.dimension_sections") == [11, 11, 10, 0]
    assert after.get("llama.leading_dense_block_count") == 1
    assert after.get("xielu.eps") == [0.1, 0.4]


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


def keyed(kind: str, value: object, elem: str = "") -> Metadata:
    keys = source(general__architecture=Value("STRING", "llama"), llama__block_count=Value("UINT32", 2))
    keys.values["a.b"] = Value(kind, value, elem)
    return keys


@pytest.mark.parametrize(
    ("stored", "text", "want"),
    [
        (("FLOAT32", 1.0), "int:1000000", Value("FLOAT32", 1e6)),
        (("FLOAT32", 1.0), "float:0.1", Value("FLOAT32", float(np.float32(0.1)))),
        (("BOOL", True), "int:0", Value("BOOL", False)), (("BOOL", False), "bool:true", Value("BOOL", True)),
        (("UINT32", 1), "int:128", Value("UINT32", 128)), (("INT32", 1), "int:-5", Value("INT32", -5)),
        (("UINT16", 1), "int:7", Value("UINT16", 7)), (("UINT64", 1), "int:7", Value("UINT64", 7)),
        (("UINT32", 1), "float:5e3", Value("UINT32", 5000)), (("STRING", "x"), "str:y", Value("STRING", "y")),
        (("ARRAY", [3, 4], "INT32"), "int:8", Value("UINT32", 8)),
        (("ARRAY", [3.0, 4.0], "FLOAT32"), "int:8", Value("FLOAT32", 8.0)),
    ],
)  # fmt: skip
def test_an_override_takes_the_type_of_the_key_that_is_there(stored: tuple[Any, ...], text: str, want: Value) -> None:
    after = quantize_metadata(keyed(*stored), Q4_K_M, overrides=[parse_override(f"a.b={text}")])
    assert after.values["a.b"] == want


@pytest.mark.parametrize(
    ("stored", "text", "word"),
    [
        (("FLOAT32", 1.0), "bool:true", "float"), (("FLOAT32", 1.0), "str:x", "float"), (("BOOL", True), "int:2", "bool"),
        (("BOOL", True), "float:1", "bool"), (("BOOL", True), "str:true", "bool"), (("UINT32", 1), "bool:true", "int"),
        (("UINT32", 1), "float:0.5", "int"), (("UINT32", 1), "str:5", "int"), (("STRING", "x"), "int:5", "str"),
        (("ARRAY", [1, 2, 3], "INT32"), "int:5", "Lists"), (("ARRAY", [True, True], "BOOL"), "bool:true", "Lists"),
        (("ARRAY", ["a", "b"], "STRING"), "str:x", "Lists"),
    ],
)  # fmt: skip
def test_an_override_that_cannot_stand_for_the_key_is_refused(stored: tuple[Any, ...], text: str, word: str) -> None:
    with pytest.raises(UsageError, match=r"a\.b: the key is stored as") as refused:
        quantize_metadata(keyed(*stored), Q4_K_M, overrides=[parse_override(f"a.b={text}")])
    assert word in refused.value.hint


@pytest.mark.parametrize(
    ("kind", "text"), [("UINT32", "int:-5"), ("UINT8", "int:256"), ("INT32", "int:4294967295"), ("INT8", "int:-129")]
)
def test_an_override_beyond_the_range_of_the_key_is_refused(kind: str, text: str) -> None:
    with pytest.raises(UsageError, match=f"does not fit {kind}"):
        quantize_metadata(keyed(kind, 1), Q4_K_M, overrides=[parse_override(f"a.b={text}")])


def test_a_new_key_of_an_int_is_the_unsigned_number_of_its_absolute_value() -> None:
    after = quantize_metadata(source(), Q4_K_M, overrides=[parse_override("my.int=int:-5")])
    assert after.values["my.int"] == Value("UINT32", 5)


@pytest.mark.parametrize(
    "text",
    ["a=float:inf", "a=float:nan", "a=float:1e39",
     "a", "a=1", "=int:1", "a=int:x", "a=int:4294967296", "a=float:", "a=bool:yes", "a=u8:1", "general.alignment=int:64",
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
            pruned=o.get("prune", ()),
        )
        label = f"{c['ftype']} {c['imatrix']} {o}"
        assert list(after.values) == c["kv_order"], label
        changed = {k: [VALUE_TYPES[v.type][0], v.value] for k, v in after.items() if before.values.get(k) != v}
        assert changed == c["kv_changed"], label
        assert sorted(set(before.values) - set(after.values)) == c["kv_removed"], label
