"""Files of importance matrices as they are written, added up and described."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from streamconv.errors import BadInput
from streamconv.quant.imatrix_files import ImatrixFile, Shape, read_imatrix_file
from streamconv.quant.imatrix_statistics import by_block, lines, statistics
from streamconv.quant.imatrix_sums import Sums, chunk_size_of
from streamconv.targets.imatrix import layout

SHAPES = [Shape("output.weight", 1, 5), Shape("blk.10.a.weight", 1, 3), Shape("blk.2.e_exps.weight", 2, 4)]
VALUES = {s.name: np.arange(1, s.n_mat * s.n_cols + 1, dtype=np.float64).reshape(s.n_mat, -1) for s in SHAPES}
COUNTS = {"output.weight": [1024], "blk.10.a.weight": [1024], "blk.2.e_exps.weight": [1000, 0]}


def _write(
    path: Path, shapes: list[Shape] = SHAPES, datasets: tuple[str, ...] = ("a.txt", "b.txt"), job: str = ""
) -> Path:
    file = layout(path, shapes, datasets, 2, 512, job)
    data = bytearray(file.size)
    data[: len(file.header)] = file.header
    data[len(data) - len(file.tail) :] = file.tail
    for shape in shapes:
        at, length = file.places[shape.name]
        encoded = file.encode(shape, VALUES[shape.name], np.array(COUNTS[shape.name]))
        assert len(encoded) == length
        data[at : at + length] = encoded
    path.write_bytes(data)
    return path


def test_a_gguf_file_reads_back_with_its_keys(tmp_path: Path) -> None:
    found = read_imatrix_file(_write(tmp_path / "m.gguf"))
    assert (found.datasets, found.chunks, found.chunk_size) == (["a.txt", "b.txt"], 2, 512)
    assert list(found.entries) == ["blk.10.a.weight", "blk.2.e_exps.weight", "output.weight"]
    for name, entry in found.entries.items():
        assert entry.sums.tolist() == VALUES[name].tolist()
        assert entry.counts.tolist() == COUNTS[name]


def test_keys_come_in_the_order_of_llama_imatrix_and_the_job_last(tmp_path: Path) -> None:
    data = _write(tmp_path / "m.gguf", job="ab").read_bytes()
    keys = [b"general.type", b"imatrix.datasets", b"imatrix.chunk_count", b"imatrix.chunk_size", b"streamconv.job"]
    places = [data.index(key) for key in keys]
    assert places == sorted(places)


def test_a_file_without_data_sets_still_has_the_key_that_readers_want(tmp_path: Path) -> None:
    assert read_imatrix_file(_write(tmp_path / "m.gguf", datasets=())).datasets == []


def test_the_older_format_has_means_times_chunks_and_1_for_what_was_not_reached(tmp_path: Path) -> None:
    data = _write(tmp_path / "m.dat", SHAPES[1:]).read_bytes()
    first = struct.pack("<ii15sii3f", 2, 15, b"blk.10.a.weight", 2, 3, *(np.float32(v) / 1024 * 2 for v in (1, 2, 3)))
    means = [np.float32(v) / np.float32(1000) * 2 for v in (1, 2, 3, 4)] + [2.0] * 4
    second = struct.pack("<i19sii8f", 19, b"blk.2.e_exps.weight", 2, 8, *means)
    assert data == first + second + struct.pack("<ii5s", 2, 5, b"b.txt")


def test_both_formats_mean_the_same(tmp_path: Path) -> None:
    files = [read_imatrix_file(_write(tmp_path / f"m.{ending}", SHAPES[1:2])) for ending in ("gguf", "dat")]
    gguf, dat = (Sums([file], 512) for file in files)
    name = "blk.10.a.weight"
    assert (gguf.counts[name].tolist(), dat.counts[name].tolist()) == ([1024], [1024])
    assert np.allclose(gguf.sums(name), dat.sums(name), rtol=1e-6)


def test_sums_and_counts_add_and_one_count_stands_for_all_experts(tmp_path: Path) -> None:
    gguf, dat = (read_imatrix_file(_write(tmp_path / f"m.{ending}")) for ending in ("gguf", "dat"))
    found = Sums([gguf, dat, gguf], 512)
    assert found.counts["blk.2.e_exps.weight"].tolist() == [3024, 1024]
    assert found.shapes["blk.2.e_exps.weight"] == SHAPES[2]
    assert np.allclose(found.sums("output.weight"), 3 * VALUES["output.weight"], rtol=1e-6)
    assert found.datasets == ["a.txt", "b.txt", "b.txt", "a.txt", "b.txt"]
    assert found.n_chunks == 6
    assert chunk_size_of([dat, gguf], 64) == 512
    assert chunk_size_of([dat], 64) == 64


@pytest.mark.parametrize("count", [-1, 2.0**30, 1e38, np.inf, np.nan])
def test_counts_that_are_no_numbers_of_tokens_are_refused(tmp_path: Path, count: float) -> None:
    found = read_imatrix_file(_write(tmp_path / "m.gguf"))
    counts = np.array([1000, count], np.float32)
    found.entries["blk.2.e_exps.weight"] = replace(found.entries["blk.2.e_exps.weight"], counts=counts)
    with pytest.raises(BadInput, match=r"m\.gguf: the counts of blk\.2\.e_exps\.weight are not numbers of tokens"):
        Sums([found, found], 512)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [3e38, np.inf, np.nan])
def test_sums_that_are_too_large_are_refused_by_name_and_nothing_else_is_said(tmp_path: Path, value: float) -> None:
    found = read_imatrix_file(_write(tmp_path / "m.dat"))
    sums = np.full_like(found.entries["output.weight"].sums, value)
    found.entries["output.weight"] = replace(found.entries["output.weight"], sums=sums)
    with pytest.raises(BadInput, match=r"m\.dat: the entry for output\.weight holds NaN or Inf"):
        Sums([found], 512).sums("output.weight")


@pytest.mark.parametrize("size", [1 << 31, (1 << 32) - 1])
def test_a_chunk_size_that_is_no_number_of_tokens_is_refused(tmp_path: Path, size: int) -> None:
    path = _write(tmp_path / "m.gguf")
    key = b"imatrix.chunk_size" + struct.pack("<I", 4)
    path.write_bytes(path.read_bytes().replace(key + struct.pack("<I", 512), key + struct.pack("<I", size)))
    with pytest.raises(BadInput, match=f"chunk_size is {size}"):
        read_imatrix_file(path)


def test_entries_of_another_model_are_refused(tmp_path: Path) -> None:
    a = read_imatrix_file(_write(tmp_path / "a.gguf", SHAPES[:1]))
    other = ImatrixFile(
        tmp_path / "b.gguf",
        {"output.weight": read_imatrix_file(_write(tmp_path / "c.gguf", SHAPES[1:2])).entries["blk.10.a.weight"]},
        [],
        1,
        512,
    )
    with pytest.raises(BadInput, match=r"b\.gguf: the entry for output\.weight has another shape"):
        Sums([a, other], 512)
    with pytest.raises(BadInput, match="1 x 5, that of this model 1 x 6"):
        Sums([a], 512).refuse_others([Shape("output.weight", 1, 6)])


def test_statistics_are_those_of_the_means(tmp_path: Path) -> None:
    found = {s.name: s for s in statistics(Sums([read_imatrix_file(_write(tmp_path / "m.gguf"))], 512))}
    one = found["blk.2.e_exps.weight"]
    means = np.array([1, 2, 3, 4]) / 1000
    assert (one.block, one.tensor, one.n) == (2, "e_exps", 4)  # of the expert that was reached
    assert one.total == pytest.approx(means.sum())
    assert one.deviation == pytest.approx(means.std())
    shares = means / means.sum()
    assert one.entropy == pytest.approx(-(shares * np.log2(shares)).sum())
    assert one.entropy_share == pytest.approx(one.entropy / 2)
    assert (one.active, one.zd, one.cosine) == (1, 0.25, 0)
    assert found["output.weight"].block is None
    assert [b.block for b in by_block(list(found.values()))] == [2, 10]
    assert any("e_exps" in line for line in lines("m", list(found.values())))


def test_the_cosine_is_that_to_the_block_before(tmp_path: Path) -> None:
    names = ["blk.0.a.weight", "blk.1.a.weight"]
    entries = [read_imatrix_file(_write(tmp_path / "m.gguf", SHAPES[i : i + 1])).entries for i in (1, 1)]
    file = ImatrixFile(
        tmp_path / "x", {n: next(iter(e.values())) for n, e in zip(names, entries, strict=True)}, [], 1, 512
    )
    found = statistics(Sums([file], 512))
    assert sorted(round(s.cosine, 6) for s in found) == [0, 1]


@pytest.mark.slow
def test_what_llama_imatrix_wrote_is_written_again_byte_for_byte(reference: Path) -> None:
    files = sorted((reference / "golden" / "forward").glob("*/*.imatrix.*"))
    assert files
    for path in files:
        stored = read_imatrix_file(path)
        sums = Sums([stored], stored.chunk_size or 512)
        file = layout(path, list(sums.shapes.values()), stored.datasets, sums.n_chunks, sums.chunk_size)
        made = b"".join(file.encode(sums.shapes[n], sums.sums(n), sums.counts[n]) for n in file.places)
        assert file.header + made + file.tail == path.read_bytes(), path
