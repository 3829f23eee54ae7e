"""The container of gemma.cpp's weight files: both versions, and everything that its reader refuses."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import sbs_files as files
from row_contract import check_identity, check_rows

from streamconv import inspect, sbs
from streamconv.errors import BadInput
from streamconv.sources import open_checkpoint
from streamconv.sources.mapped import MappedFile
from streamconv.sources.sbs import SbsRows, Store, read_store

DATA = Path(__file__).resolve().parents[1] / "data" / "sbs"
GOLDEN = json.loads((DATA / "store_golden.json").read_text())
BLOBS = {"k0": b"a", "k1": bytes(255), "exactly16charkey": bytes(257), "config_9": b"xyz"}


def image(name: str) -> np.ndarray:
    found: np.ndarray = np.load(DATA / "store_golden.npz")[name]
    return found


def read(folder: Path, data: bytes) -> Store:
    path = folder / "x.sbs"
    path.write_bytes(data)
    return read_store(MappedFile(path))


def refused(folder: Path, data: bytes, *words: str) -> None:
    with pytest.raises(BadInput) as told:
        read(folder, data)
    for word in (str(folder / "x.sbs"), *words):
        assert word in str(told.value)


@pytest.mark.parametrize("name", GOLDEN["stores"])
def test_containers_of_the_reference_are_read(name: str, tmp_path: Path) -> None:
    found = read(tmp_path, image(name).tobytes())
    assert found.version == (1 if "_v1" in name else 2)
    wanted = GOLDEN["stores"][name] or GOLDEN["stores"]["raw_blobs_v2"]
    assert len(found.blobs) == len(wanted)
    for key, offset, n_bytes in wanted:
        assert found.blobs[key].n_bytes == n_bytes
        assert offset in (None, found.blobs[key].offset)


@pytest.mark.parametrize("name", GOLDEN["refused"])
def test_what_the_reference_refuses_is_refused(name: str, tmp_path: Path) -> None:
    case = GOLDEN["refused"][name]
    data = image("raw_blobs_v2")[: case["size"]].copy()
    data[case["at"]] = case["bytes"]
    refused(tmp_path, data.tobytes())


@pytest.mark.parametrize("version", [1, 2])
def test_blobs_are_where_they_were_put(version: int, tmp_path: Path) -> None:
    for pad_end in (True, False):
        found = read(tmp_path, files.store(BLOBS, version, pad_end))
        assert (found.version, list(found.blobs)) == (version, list(BLOBS))
        assert {key: bytes(found.file.view(*found.blobs[key])) for key in BLOBS} == BLOBS


def patched(data: bytes, at: int, what: str, *values: int) -> bytes:
    changed = bytearray(data)
    struct.pack_into(what, changed, at, *values)
    return bytes(changed)


@pytest.mark.parametrize("version", [1, 2])
def test_every_field_that_is_wrong_is_named(version: int, tmp_path: Path) -> None:
    data = files.store(BLOBS, version)
    n = len(BLOBS)
    header = 0 if version == 1 else len(data) - 16
    keys = 16 if version == 1 else header - 32 * n
    ranges = keys + 16 * n
    refused(tmp_path, patched(data, header, "<I", 1), f"byte {len(data) - 16}")
    refused(tmp_path, patched(data, header + 4, "<I", 0), f"byte {len(data) - 16}" if version == 1 else "0 blobs")
    refused(tmp_path, patched(data, header + 8, "<Q", len(data) + 256), f"says {len(data) + 256} bytes")
    refused(tmp_path, patched(data, header + 8, "<Q", 1 << 63), "truncated")
    refused(tmp_path, data + bytes(65536), "65536" if version == 1 else "SBS")
    refused(tmp_path, patched(data, keys + 16, "<2s", b"k0"), "two blobs have the key 'k0'")
    refused(tmp_path, patched(data, keys, "<2s", b"\0\0"), "blob 0", "empty key")
    refused(tmp_path, patched(data, ranges + 24, "<Q", 0), "blob 1, 'k1'", f"byte {ranges + 16}", "is empty")
    for offset, word in ((0, "begins at byte 0"), (257, "no multiple of 256"), (1 << 63, f"begins at byte {1 << 63}")):
        refused(tmp_path, patched(data, ranges + 16, "<Q", offset), "'k1'", word)
    for size in (1 << 63, (1 << 64) - 1, len(data)):
        refused(tmp_path, patched(data, ranges + 16 * 3 + 8, "<Q", size), "'config_9'", "past the end")


def test_counts_of_blobs_that_no_file_can_hold_cost_nothing(tmp_path: Path) -> None:
    data = files.store(BLOBS)
    for count in (16385, 0xFFFFFFFF):
        refused(tmp_path, patched(data, len(data) - 12, "<I", count), f"{count} blobs")
    refused(tmp_path, patched(data, len(data) - 12, "<I", 16384), "does not fit")
    refused(tmp_path, b"SBS\n" + struct.pack("<IQ", 0xFFFFFFFF, 16), "4294967295 blobs")


def test_what_lies_in_the_place_of_a_file_is_named(tmp_path: Path) -> None:
    refused(tmp_path, b"", "0 bytes")
    refused(tmp_path, b"SBS\n\1\0", "6 bytes")
    refused(tmp_path, b"version https://git-lfs.github.com/spec/v1\nsize 5\n", "Git LFS")
    refused(tmp_path, b"<!doctype html><html>", "web page")
    refused(tmp_path, b"GGUF" + bytes(range(128, 256)), "a GGUF file")


def test_the_first_header_of_the_newer_layout_says_nothing_but_that_there_are_no_blobs(tmp_path: Path) -> None:
    data = files.store(BLOBS)
    assert list(read(tmp_path, patched(data, 0, "<IIQ", 1, 0, 7)).blobs) == list(BLOBS)
    refused(tmp_path, patched(data, 4, "<I", 1))


def test_keys_may_be_any_bytes_and_are_shown_escaped(tmp_path: Path) -> None:
    found = read(tmp_path, files.store({"\xe9\n": b"1"}))
    assert list(found.blobs) == ["\xe9\n"]
    assert "\\n" in "\n".join(inspect.lines(inspect.describe(open_checkpoint(tmp_path / "x.sbs"))))


@pytest.mark.parametrize("kind", ["F32", "BF16", "SFP", "NUQ", "I8"])
def test_rows_keep_the_contract_whatever_their_groups(kind: str, tmp_path: Path) -> None:
    for shape, scale in (((7, 50), 1.0), ((3, 256), 1.5), ((600, 257), 1.0), ((1, 129), -2.0)):
        x = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
        data, _ = sbs.encode(x, kind)
        path = tmp_path / "x.sbs"
        path.write_bytes(files.store({"a": b"1", "w": data.tobytes()}))
        offset = read_store(MappedFile(path)).blobs["w"].offset

        def fresh(shape: tuple[int, ...] = shape, scale: float = scale, offset: int = offset) -> SbsRows:
            return SbsRows(MappedFile(tmp_path / "x.sbs"), offset, "w", shape, kind, scale)

        rows = fresh()
        check_rows(rows)
        check_identity(fresh)
        assert rows.n_bytes == len(data)
        whole = sbs.decode(data, kind, x.size, scale).reshape(shape)
        assert np.array_equal(rows.read(0, shape[0]), whole)
        (span,) = rows.spans(0, shape[0])
        assert (span.offset, span.length) == (offset, len(data))


def test_inspect_lists_blobs_configuration_and_contents(tmp_path: Path) -> None:
    path = tmp_path / "x.sbs"
    path.write_bytes(files.toy("gemma3").file())
    facts = inspect.describe(open_checkpoint(path))
    json.dumps(facts)
    assert facts["format"] == "sbs"
    assert {"key": "c_final_norm", "offset": 1280, "bytes": 32} in facts["blobs"]
    assert (facts["config"]["display_name"], facts["config"]["weight"], facts["config"]["num_layers"]) == (
        "Toy",
        "BF16",
        2,
    )
    assert {"name": "linear_w_1", "type": "BF16", "rows": 16, "cols": 24, "scale": 1.0} in facts["toc"]
    assert facts["totals"]["tensors"] == len(facts["toc"]) == len(facts["blobs"]) - 3
    lines = "\n".join(inspect.lines(facts))
    assert "display_name: Toy" in lines
    assert "linear_w_1" in lines


def test_metadata_that_would_fill_the_memory_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.sbs"
    for key, size in (("config", 1 << 21), ("toc", 1 << 14)):
        path.write_bytes(files.store({**files.toy().everything(), key: bytes(size)}))
        facts = inspect.describe(open_checkpoint(path))
        assert any(f"blob '{key}' at byte" in n and f"{size} bytes, over the limit" in n for n in facts["warnings"])


@pytest.mark.parametrize("key", ["config", "toc"])
def test_inspect_tells_of_metadata_that_cannot_be_read(key: str, tmp_path: Path) -> None:
    path = tmp_path / "x.sbs"
    path.write_bytes(files.store({**files.toy().everything(), key: struct.pack("<II", 9000, 1)}))
    facts = inspect.describe(open_checkpoint(path))
    assert len(facts["blobs"]) == len(files.toy().everything())
    assert any(f"blob '{key}' at byte" in note and str(path) in note for note in facts["warnings"])
