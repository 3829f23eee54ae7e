"""The strict GGUF reader."""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from container_files import gguf_bytes, tensor_info, text, value

from streamconv.errors import BadInput, InputMissing
from streamconv.quant.types import TYPES
from streamconv.rows import Rows
from streamconv.sources import open_checkpoint, read_gguf
from streamconv.sources.gguf_header import StringArray

ARCH = ("general.architecture", value("STRING", "llama"))
F32, F16, Q8_0, I32 = (TYPES[name].id for name in ("F32", "F16", "Q8_0", "I32"))


def array_header(elem: int, count: int) -> bytes:
    return struct.pack("<IIQ", 9, elem, count)


BROKEN = {
    "empty": (b"", "empty"),
    "magic": (b"GGUX" + gguf_bytes([ARCH])[4:], "magic"),
    "three bytes": (b"GGU", "GGUF"),
    "only the magic": (b"GGUF", "truncated"),
    "version 1": (gguf_bytes([ARCH], version=1), "version 1"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "counts of 2^60": (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**60), "metadata entries"),
    "tensors of 2^60": (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0), "tensors"),
    "cut inside the metadata": (gguf_bytes([ARCH])[:50], "truncated"),
    "string of 2^62": (gguf_bytes([("k", struct.pack("<IQ", 8, 2**62))], data=bytes(64)), "string length"),
    "key of 100 KB": (gguf_bytes([("k" * 100_000, value("UINT32", 1))]), "limit"),
    "key not UTF-8": (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text(b"\xff\xff") + value("UINT32", 1), "UTF-8"),
    "text not UTF-8": (gguf_bytes([("k", struct.pack("<I", 8) + text(b"\xff"))]), "UTF-8"),
    "value type 42": (gguf_bytes([("k", struct.pack("<IQ", 42, 0))]), "type 42"),
    "element type 42": (gguf_bytes([("k", array_header(42, 1) + bytes(8))]), "type 42"),
    "array of arrays": (gguf_bytes([("k", array_header(9, 1) + array_header(9, 1) * 1000)]), "nested"),
    "array of 2^61 numbers": (gguf_bytes([("k", array_header(4, 2**61))]), "truncated"),
    "array of 2^61 texts": (gguf_bytes([("k", array_header(8, 2**61))]), "truncated"),
    "last text too long": (
        gguf_bytes([("k", array_header(8, 2) + text("a") + struct.pack("<Q", 2**60))], data=bytes(64)),
        "truncated",
    ),
    "texts run out": (gguf_bytes([("k", array_header(8, 6) + text("a" * 40))]), "truncated"),
    "duplicate key": (gguf_bytes([ARCH, ARCH]), "duplicate"),
    "duplicate tensor": (
        gguf_bytes([ARCH], [tensor_info("a", (4,), F32, 0), tensor_info("a", (4,), F32, 32)], bytes(64)),
        "duplicate",
    ),
    "removed type": (gguf_bytes([ARCH], [tensor_info("a", (32,), 4, 0)], bytes(64)), "type 4"),
    "five dimensions": (gguf_bytes([ARCH], [tensor_info("a", (1,) * 5, F32, 0)], bytes(64)), "dimensions"),
    "zero dimension": (gguf_bytes([ARCH], [tensor_info("a", (0, 4), F32, 0)], bytes(64)), "zero dimension"),
    "elements overflow": (gguf_bytes([ARCH], [tensor_info("a", (2**62, 2**62), F32, 0)], bytes(64)), "overflow"),
    "half a block": (gguf_bytes([ARCH], [tensor_info("a", (33,), Q8_0, 0)], bytes(64)), "whole blocks"),
    "unaligned offset": (gguf_bytes([ARCH], [tensor_info("a", (4,), F32, 16)], bytes(64)), "aligned"),
    "overlap": (
        gguf_bytes([ARCH], [tensor_info("a", (16,), F32, 0), tensor_info("b", (4,), F32, 32)], bytes(96)),
        "overlaps 'a'",
    ),
    "data cut": (gguf_bytes([ARCH], [tensor_info("a", (32,), F32, 0)], bytes(100)), "needs 128 bytes"),
    "data far away": (gguf_bytes([ARCH], [tensor_info("a", (32,), F32, 2**63)], bytes(100)), "truncated"),
    "alignment 0": (gguf_bytes([("general.alignment", value("UINT32", 0))]), "alignment"),
    "alignment 3": (gguf_bytes([("general.alignment", value("UINT32", 3))]), "alignment"),
    "alignment as text": (gguf_bytes([("general.alignment", value("STRING", "32"))]), "alignment"),
}


@pytest.mark.parametrize("case", BROKEN)
@pytest.mark.parametrize("io", ["mmap", "pread"])
def test_a_broken_file_is_refused_by_name(tmp_path: Path, case: str, io: str) -> None:
    raw, words = BROKEN[case]
    path = tmp_path / "bad.gguf"
    path.write_bytes(raw)
    with pytest.raises(BadInput) as caught:
        read_gguf(path, io)  # type: ignore[arg-type]
    assert "bad.gguf" in str(caught.value)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 500


#: headers that describe far more than any model has, and the words of the limit that they meet
EXCESSIVE = {
    "70 million small numbers": (lambda: gguf_bytes([("k", array_header(0, 70 << 20))]), 80 << 20, "limit of 67108864"),
    "3 million small numbers": (lambda: gguf_bytes([("k", array_header(0, 3_000_000))]), 4 << 20, "describes more"),
    "5 million empty texts": (lambda: gguf_bytes([("k", array_header(8, 5_000_000))]), 48 << 20, "describes more"),
    "52 MB of wide text": (
        lambda: gguf_bytes([(k, value("STRING", "\u00e9" + "a" * 13_000_000)) for k in "abcd"]), 0, "describes more",
    ),
    "110 000 keys": (lambda: gguf_bytes([(f"{i}", value("BOOL", True)) for i in range(110_000)]), 0, "describes more"),
    "70 000 tensors": (
        lambda: gguf_bytes([ARCH], [tensor_info(f"{i}", (4,), F32, 32 * i) for i in range(70_000)]), 8 << 20,
        "describes more",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", EXCESSIVE)
def test_a_header_takes_a_bounded_part_of_memory(tmp_path: Path, case: str) -> None:
    made, size, words = EXCESSIVE[case]
    path = tmp_path / "much.gguf"
    path.write_bytes(made())
    if size:
        os.truncate(path, size)  # sparse: costs whoever makes it nothing
    with pytest.raises(BadInput, match=words):
        read_gguf(path)


def small(
    path: Path, pairs: Sequence[tuple[str, bytes]] = (), names: tuple[str, ...] = ("w", "v"), version: int = 3
) -> np.ndarray:
    """A file with [2, 4] F32 tensors; gives their values, [n, 2, 4]."""
    values = np.arange(len(names) * 8, dtype="<f4").reshape(-1, 2, 4)
    infos = [tensor_info(name, (4, 2), F32, i * 32) for i, name in enumerate(names)]
    path.write_bytes(gguf_bytes([ARCH, *pairs], infos, values.tobytes(), version=version))
    return values


@pytest.mark.parametrize("io", ["mmap", "pread"])
@pytest.mark.parametrize("version", [2, 3])
def test_tensors_come_in_file_order_as_row_sources(tmp_path: Path, io: str, version: int) -> None:
    values = small(tmp_path / "x.gguf", version=version)
    checkpoint = open_checkpoint(tmp_path / "x.gguf", io)  # type: ignore[arg-type]
    assert list(checkpoint.tensors) == ["w", "v"]
    for rows, want in zip(checkpoint.tensors.values(), values, strict=True):
        assert isinstance(rows, Rows)
        assert rows.shape == (2, 4)
        assert rows.dtype == "F32"
        assert np.array_equal(rows.read(0, 2), want)
    assert checkpoint.metadata is not None
    assert checkpoint.metadata.get("general.architecture") == "llama"
    assert checkpoint.inputs[0].name == "x.gguf"


def test_values_of_every_kind_are_read(tmp_path: Path) -> None:
    pairs = [
        ("i", value("INT32", -5)),
        ("f", value("FLOAT32", 0.5)),
        ("b", value("BOOL", True)),
        ("s", value("STRING", "grüß\0dich")),
        ("none", value("STRING", "")),
        ("ints", value("INT32S", [1, -2])),
        ("flags", value("BOOLS", [True, False])),
        ("texts", value("STRINGS", ["a", "", "ß"])),
        ("nothing", value("STRINGS", [])),
    ]
    small(tmp_path / "x.gguf", pairs)
    metadata = read_gguf(tmp_path / "x.gguf").metadata
    assert [metadata.get(key) for key, _ in pairs] == [
        -5,
        0.5,
        True,
        "grüß\0dich",
        "",
        [1, -2],
        [True, False],
        ["a", "", "ß"],
        [],
    ]
    assert metadata.values["texts"].elem == "STRING"


def test_texts_are_a_lazy_sequence(tmp_path: Path) -> None:
    tokens = [f"tok{i}" for i in range(1000)]
    small(tmp_path / "x.gguf", [("tokens", value("STRINGS", [*tokens, b"\xff"]))])
    found = read_gguf(tmp_path / "x.gguf").metadata.get("tokens")
    assert isinstance(found, StringArray)
    assert len(found) == 1001
    assert found[7] == "tok7"
    assert found[:3] == tokens[:3]
    assert found != tokens
    with pytest.raises(BadInput, match="element 1000 is not UTF-8"):
        list(found)
    with pytest.raises(BadInput, match="not UTF-8"):
        found[-1]


def test_a_header_longer_than_the_first_window_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamconv.sources.gguf_header._FIRST_WINDOW_BYTES", 8)
    tokens = [f"tok{i}" for i in range(500)]
    small(tmp_path / "x.gguf", [("tokens", value("STRINGS", tokens)), ("n", value("INT32S", list(range(500))))])
    found = read_gguf(tmp_path / "x.gguf", "pread").metadata
    assert found.get("tokens") == tokens
    assert found.get("n") == list(range(500))


def test_a_large_vocabulary_parses_fast(tmp_path: Path) -> None:
    from time import perf_counter

    small(tmp_path / "x.gguf", [("tokens", value("STRINGS", [f"tok{i}" for i in range(150_000)]))])
    begin = perf_counter()
    assert len(read_gguf(tmp_path / "x.gguf").metadata.get("tokens")) == 150_000
    assert perf_counter() - begin < 1  # 0.03 s on an idle core


def test_a_custom_alignment_moves_the_data(tmp_path: Path) -> None:
    data = np.arange(4, dtype="<f4")
    pairs = [("general.alignment", value("UINT32", 256))]
    (tmp_path / "x.gguf").write_bytes(
        gguf_bytes(pairs, [tensor_info("a", (4,), F32, 0)], data.tobytes(), alignment=256)
    )
    assert np.array_equal(open_checkpoint(tmp_path / "x.gguf").tensors["a"].read(0, 1)[0], data)


def test_half_and_integer_tensors_need_no_codec(tmp_path: Path) -> None:
    half, whole = np.array([1.5, -2], "<f2"), np.array([7, -9], "<i4")
    infos = [tensor_info("h", (2,), F16, 0), tensor_info("i", (2,), I32, 32)]
    (tmp_path / "x.gguf").write_bytes(gguf_bytes([ARCH], infos, half.tobytes() + bytes(28) + whole.tobytes()))
    tensors = open_checkpoint(tmp_path / "x.gguf").tensors
    assert tensors["h"].read(0, 1).tolist() == [[1.5, -2]]
    assert tensors["i"].read(0, 1).tolist() == [[7, -9]]


def test_blocks_are_handed_out_as_stored(tmp_path: Path) -> None:
    blocks = np.arange(3 * 68, dtype=np.uint8)
    (tmp_path / "x.gguf").write_bytes(gguf_bytes([ARCH], [tensor_info("q", (64, 3), Q8_0, 0)], blocks.tobytes()))
    rows = open_checkpoint(tmp_path / "x.gguf").tensors["q"]
    assert rows.dtype == "Q8_0"
    assert rows.shape == (3, 64)
    assert rows.stored(1, 3).tobytes() == blocks[68:].tobytes()  # type: ignore[union-attr]


def split(folder: Path, count: int = 3, **changes: object) -> Path:
    """Write a model in ``count`` files of one tensor each; ``changes`` = {"no1": 5} sets split.no of file 1, and so on."""
    for number in range(count):
        pairs = [
            ("split.no", value("UINT16", changes.get(f"no{number}", number))),
            ("split.count", value("UINT16", count)),
            ("split.tensors.count", value("INT32", changes.get("total", count))),
        ]
        name = str(changes.get(f"name{number}", f"w{number}"))
        small(folder / f"x-{number + 1:05d}-of-{count:05d}.gguf", pairs, (name,))
    return folder / f"x-00001-of-{count:05d}.gguf"


def test_the_first_split_opens_the_whole_model(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(split(tmp_path))
    assert list(checkpoint.tensors) == ["w0", "w1", "w2"]
    assert len(checkpoint.inputs) == 3
    assert checkpoint.metadata is not None
    assert "split.count" not in checkpoint.metadata


def test_a_missing_split_is_named(tmp_path: Path) -> None:
    first = split(tmp_path)
    (tmp_path / "x-00002-of-00003.gguf").unlink()
    with pytest.raises(InputMissing, match="x-00002-of-00003"):
        open_checkpoint(first)


def test_a_later_split_points_to_the_first(tmp_path: Path) -> None:
    split(tmp_path)
    with pytest.raises(BadInput, match="Give x-00001-of-00003"):
        open_checkpoint(tmp_path / "x-00002-of-00003.gguf")


def test_a_renamed_split_is_refused(tmp_path: Path) -> None:
    split(tmp_path).rename(tmp_path / "y.gguf")
    with pytest.raises(BadInput, match="must end in -00001-of-00003"):
        open_checkpoint(tmp_path / "y.gguf")


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"no1": 2}, "do not say 1 of 3"), ({"name1": "w0"}, "duplicate tensor 'w0'"), ({"total": 9}, "promises 9")],
)
def test_splits_that_contradict_each_other_are_refused(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        open_checkpoint(split(tmp_path, **changes))


def test_every_type_decodes_as_the_reference_does(reference: Path) -> None:
    sources = reference / "golden" / "sources"
    want = open_checkpoint(sources / "gguf_source.expected.safetensors").tensors
    for name, rows in open_checkpoint(sources / "gguf_source.gguf").tensors.items():
        try:
            found = rows.read(0, 5)
        except ModuleNotFoundError as e:  # pragma: no cover
            pytest.skip(str(e))
        expected = want[name].read(0, 5)
        assert np.array_equal(found.view(np.uint32), expected.view(np.uint32)), name
        strided = np.zeros((10, rows.shape[-1]), np.float32)
        rows.read(0, 5, strided[1::2])
        assert np.array_equal(strided[1::2].view(np.uint32), expected.view(np.uint32)), name


def test_opening_needs_no_numba() -> None:
    import subprocess

    code = "import sys, streamconv.sources; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
