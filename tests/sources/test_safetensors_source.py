"""The strict safetensors reader."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from container_files import f32, safetensors_bytes, write_safetensors

from streamconv.errors import BadInput, InputMissing
from streamconv.sources import open_checkpoint
from streamconv.sources.hostile_json import MAX_JSON_BYTES


def entry(dtype: object = "F32", shape: object = (2,), begin: object = 0, end: object = 8) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


DATA = bytes(range(32))
BROKEN = {
    "empty file": (b"", "empty"),
    "shorter than the length": (b"\x01\x02", "too small"),
    "length 2^63": (safetensors_bytes({}, length=2**63), "header length"),
    "length over the limit": (safetensors_bytes({}, length=MAX_JSON_BYTES + 1), "header length 50331649 is over"),
    "length past the end": (safetensors_bytes({}, length=1000), "truncated"),
    "not JSON": (safetensors_bytes(b"hello"), "JSON"),
    "not UTF-8": (safetensors_bytes(b'{"\xff": 1}'), "UTF-8"),
    "half a surrogate pair": (safetensors_bytes(b'{"\\ud800": {}}'), "UTF-8"),
    "deep nesting": (safetensors_bytes(b'{"a":' + b"[" * 60000), "deep"),
    "a number of 5000 digits": (safetensors_bytes(b'{"a":' + b"1" * 5000 + b"}"), "header"),
    "not an object": (safetensors_bytes([]), "object"),
    "entry not an object": (safetensors_bytes({"a": 5}), "'a'"),
    "metadata not strings": (safetensors_bytes({"__metadata__": {"n": 5}}), "metadata"),
    "unknown dtype": (safetensors_bytes({"a": entry("F128")}, DATA[:8]), "F128"),
    "dtype not a string": (safetensors_bytes({"a": entry(["F32"])}, DATA[:8]), "dtype"),
    "boolean dimension": (safetensors_bytes({"a": entry(shape=[True, 2])}, DATA[:8]), "shape"),
    "fractional dimension": (safetensors_bytes({"a": entry(shape=[2.0])}, DATA[:8]), "shape"),
    "negative dimension": (safetensors_bytes({"a": entry(shape=[-2])}, DATA[:8]), "shape"),
    "no shape": (safetensors_bytes({"a": {"dtype": "F32", "data_offsets": [0, 4]}}, DATA[:4]), "shape"),
    "a million dimensions": (safetensors_bytes({"a": entry(shape=[2] * 1_000_000)}, DATA[:8]), "dimensions"),
    "elements overflow": (safetensors_bytes({"a": entry(shape=[2**62, 4], end=0)}), "overflow"),
    "zero times huge": (safetensors_bytes({"a": entry(shape=[0, 2**62, 2**62], end=0)}), "overflow"),
    "three offsets": (safetensors_bytes({"a": {**entry(), "data_offsets": [0, 8, 16]}}, DATA[:8]), "data_offsets"),
    "offsets reversed": (safetensors_bytes({"a": entry(begin=8, end=0)}, DATA[:8]), "data_offsets"),
    "offsets at 2^64": (safetensors_bytes({"a": entry(begin=2**64 - 16, end=2**64 - 8)}, DATA[:8]), "offset"),
    "offset not an integer": (safetensors_bytes({"a": entry(end=8.0)}, DATA[:8]), "data_offsets"),
    "size differs from shape": (safetensors_bytes({"a": entry(shape=[2, 3])}, DATA[:8]), "needs 24 bytes"),
    "half a byte": (safetensors_bytes({"a": entry("F4", [3], end=2)}, DATA[:2]), "whole bytes"),
    "hole": (safetensors_bytes({"a": entry(), "b": entry(begin=12, end=20)}, DATA[:20]), "hole of 4 bytes"),
    "hole at the start": (safetensors_bytes({"a": entry(begin=8, end=16)}, DATA[:16]), "hole"),
    "overlap": (safetensors_bytes({"a": entry(), "b": entry(begin=4, end=12)}, DATA[:12]), "overlaps"),
    "trailing bytes": (safetensors_bytes({"a": entry()}, DATA[:11]), "3 trailing bytes"),
    "duplicate name": (
        safetensors_bytes(b'{"a":%s,"a":%s}' % ((json.dumps(entry()).encode(),) * 2), DATA[:8]),
        "duplicate",
    ),
    "duplicate field": (
        safetensors_bytes(b'{"a":{"dtype":"F32","dtype":"I32","shape":[2],"data_offsets":[0,8]}}', DATA[:8]),
        "duplicate",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
@pytest.mark.parametrize("io", ["mmap", "pread"])
def test_a_broken_file_is_refused_by_name(tmp_path: Path, case: str, io: str) -> None:
    raw, words = BROKEN[case]
    path = tmp_path / "bad.safetensors"
    path.write_bytes(raw)
    with pytest.raises(BadInput) as caught:
        open_checkpoint(path, io)  # type: ignore[arg-type]
    assert "bad.safetensors" in str(caught.value)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_truncated_shard_says_how_many_bytes_are_missing(tmp_path: Path) -> None:
    path = write_safetensors(tmp_path / "x.safetensors", {"w": f32(8, 8)})
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(BadInput) as caught:
        open_checkpoint(path)
    assert f"needs {len(whole)} bytes, the file has {len(whole) - 100} (100 are missing)" in str(caught.value)


def test_scalars_and_empty_tensors_and_odd_offsets_are_valid(tmp_path: Path) -> None:
    header = {
        "odd": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]},
        "scalar": {"dtype": "F32", "shape": [], "data_offsets": [3, 7]},
        "none": {"dtype": "F32", "shape": [0, 4], "data_offsets": [7, 7]},
        "narrow": {"dtype": "F32", "shape": [4, 0], "data_offsets": [7, 7]},
        "vector": {"dtype": "F64", "shape": [2], "data_offsets": [7, 23]},
    }
    data = b"\x01\x02\x03" + np.float32(1.5).tobytes() + np.array([0.1, -2], "<f8").tobytes()
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors_bytes(header, data))
    tensors = open_checkpoint(path).tensors
    assert tensors["odd"].read(0, 1).tolist() == [[1, 2, 3]]
    assert tensors["scalar"].read(0, 1).tolist() == [[1.5]]
    assert tensors["none"].read(0, 0).shape == (0, 4)
    assert tensors["narrow"].read(1, 3).shape == (2, 0)
    assert tensors["narrow"].stored(1, 3).shape == (2, 0)  # type: ignore[union-attr]
    assert tensors["vector"].read(0, 1).tolist() == [[np.float32(0.1), -2]]


def test_names_are_opaque_and_sorted(tmp_path: Path) -> None:
    names = ["../../evil", "a\0b", "", "x" * 5000, "b/c", "/etc/passwd"]
    path = write_safetensors(tmp_path / "x.safetensors", {name: f32(1) for name in names})
    assert list(open_checkpoint(path).tensors) == sorted(names)


def test_a_file_without_tensors_is_valid(tmp_path: Path) -> None:
    path = write_safetensors(tmp_path / "x.safetensors", {})
    assert not open_checkpoint(path).tensors


def test_a_file_has_the_config_beside_it(tmp_path: Path) -> None:
    path = write_safetensors(tmp_path / "x.safetensors", {"w": f32(1)})
    assert open_checkpoint(path).config == {}
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    checkpoint = open_checkpoint(path)
    assert checkpoint.config == {"model_type": "llama"}
    assert checkpoint.folder == tmp_path


def test_a_path_that_is_not_there_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputMissing):
        open_checkpoint(tmp_path / "no.safetensors")


def test_an_unknown_ending_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"1")
    with pytest.raises(BadInput, match="onnx"):
        open_checkpoint(tmp_path / "x.onnx")
