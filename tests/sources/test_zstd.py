"""Compressed files of weights: every kind gives the bytes of the plain file, and none can hurt."""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from small_models import write_safetensors
from zstd_files import KINDS, compressed, concatenated, pack, pieces, seekable, stream, table

from streamconv.check import check_gguf
from streamconv.errors import BadInput, InputChanged, InputMissing
from streamconv.file_names import is_weights
from streamconv.sources import open_checkpoint
from streamconv.sources.frame_cache import FrameCache
from streamconv.sources.mapped import IoMode, MappedFile
from streamconv.sources.zstd import ZstdFile

#: 100 003 bytes, some of which compress well
DATA = np.random.default_rng(0).bytes(40_000) + bytes(30_000) + b"tensor" * 5_000 + b"end"
MAKERS: dict[str, Callable[[bytes], bytes]] = {
    "seekable": seekable,
    "seekable without checksums": lambda data: seekable(data, sums=False),
    "seekable with sizes": lambda data: seekable(data, stated=True),
    "concatenated": concatenated,
    "stream": stream,
}


def opened(path: Path, content: bytes, io: IoMode = "mmap", limit: int = 1 << 20) -> ZstdFile:
    path.write_bytes(content)
    return ZstdFile(path, io, FrameCache(limit))


@pytest.mark.parametrize("io", ["mmap", "pread"])
@pytest.mark.parametrize("kind", MAKERS)
def test_any_range_is_that_of_the_plain_file(tmp_path: Path, kind: str, io: IoMode) -> None:
    file = opened(tmp_path / "x.gguf.zst", MAKERS[kind](DATA), io)
    assert file.size == len(DATA)
    assert file.view(0, file.size).tobytes() == DATA
    assert not file.view(0, 1).flags.writeable
    chosen = random.Random(1)
    for _ in range(200):
        start = chosen.randrange(len(DATA))
        stop = min(len(DATA), start + chosen.choice([0, 1, 4999, 5000, 5001, 20_000]))
        assert file.view(start, stop - start).tobytes() == DATA[start:stop], (start, stop)
        file.prefetch(start, stop - start)
        file.release(start, stop - start)
    for offset, length in ((len(DATA), 1), (-1, 2), (0, len(DATA) + 1)):
        with pytest.raises(BadInput, match=r"x\.gguf\.zst"):
            file.view(offset, length)
    assert file.view(len(DATA), 0).size == 0


@pytest.mark.parametrize("kind", MAKERS)
def test_its_content_is_told_from_others_as_that_of_the_plain_file_is(tmp_path: Path, kind: str) -> None:
    file = opened(tmp_path / "x.gguf.zst", MAKERS[kind](DATA))
    (tmp_path / "x.gguf").write_bytes(DATA)
    plain = MappedFile(tmp_path / "x.gguf")
    assert file.describe(7777).content == plain.describe(7777).content
    assert file.identity() == plain.identity()
    there, now = os.stat(tmp_path / "x.gguf.zst"), file.describe(7777)
    assert (now.name, now.size, now.inode, now.mtime_ns) == (
        "x.gguf.zst", there.st_size, there.st_ino, there.st_mtime_ns,
    )  # fmt: skip


def test_a_reader_that_goes_through_it_decompresses_each_frame_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = opened(tmp_path / "x.gguf.zst", seekable(DATA), limit=40_000)
    numbers: list[int] = []
    make = file._decompressed
    monkeypatch.setattr(file, "_decompressed", lambda number: numbers.append(number) or make(number))
    for at in range(0, len(DATA) - 700, 700):
        file.view(at, 700)
        file.release(at, 700)
    assert numbers == sorted(set(numbers))


def test_threads_stay_within_the_limit_and_all_get_their_bytes(tmp_path: Path) -> None:
    limit = 3 * 2 * 5000
    file = opened(tmp_path / "x.gguf.zst", seekable(DATA), limit=limit)
    wrong: list[int] = []
    most: list[int] = []

    def read(seed: int) -> None:
        chosen = random.Random(seed)
        for _ in range(300):
            start = chosen.randrange(len(DATA) - 12_000)
            if file.view(start, 12_000).tobytes() != DATA[start : start + 12_000]:
                wrong.append(start)
            most.append(file.cache._used)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert not wrong
    assert max(most) <= limit


_MEMORY = """
import sys, threading
from pathlib import Path
from streamconv.progress import anonymous_memory
from streamconv.sources.frame_cache import FrameCache
from streamconv.sources.zstd import ZstdFile
import zstandard

before = peak = anonymous_memory()
file = ZstdFile(Path(sys.argv[1]), sys.argv[2], FrameCache(8 << 20))
for at in list(range(0, file.size - 65536, 65536)) * 2:
    file.view(at, 65536)
    peak = max(peak, anonymous_memory())
print(peak - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="anonymous memory is read from /proc")
@pytest.mark.parametrize("io", ["mmap", "pread"])
def test_a_file_much_larger_than_the_cache_is_never_held(tmp_path: Path, io: str) -> None:
    data = np.random.default_rng(0).integers(0, 200, 64 << 20, np.uint8).tobytes()
    (tmp_path / "x.gguf.zst").write_bytes(seekable(data, 1 << 20))
    done = subprocess.run(
        [sys.executable, "-c", _MEMORY, str(tmp_path / "x.gguf.zst"), io], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 12 << 20


# What is refused, and what it says.


def refused(path: Path, content: bytes, limit: int = 1 << 20) -> BadInput:
    """The error of opening or reading the file."""
    found = read_or_error(path, content, limit)
    assert isinstance(found, BadInput)
    assert str(path) in found.message
    return found


def read_or_error(path: Path, content: bytes, limit: int = 1 << 20) -> bytes | BadInput:
    """All that the file holds, or why not."""
    try:
        file = opened(path, content, limit=limit)
        return b"".join(file.view(at, min(5000, file.size - at)).tobytes() for at in range(0, file.size, 5000))
    except BadInput as e:
        return e


FRAMES = [compressed(part, stated=False) for part in pieces(DATA, 5000)]
ENTRIES = [(len(f), len(part)) for f, part in zip(FRAMES, pieces(DATA, 5000), strict=True)]


def lying(change: Callable[[list[tuple[int, ...]]], None], frames: list[bytes] = FRAMES) -> bytes:
    entries: list[tuple[int, ...]] = list(ENTRIES)
    change(entries)
    return b"".join(frames) + table(entries)


def put(number: int, *entry: int) -> Callable[[list[tuple[int, ...]]], None]:
    return lambda entries: entries.__setitem__(number, entry)


def moved(entries: list[tuple[int, ...]]) -> None:
    """One frame begins inside the other."""
    entries[3], entries[4] = (ENTRIES[3][0] - 9, 5000), (ENTRIES[4][0] + 9, 5000)


LIES = {
    "past the end": (lying(put(5, 1 << 31, 5000)), "places"),
    "sizes that overflow 32 bits together": (lying(lambda e: e.extend([(0xFFFFFFFF, 0)] * 9)), "places"),
    "too few bytes": (lying(lambda e: e.pop()), "places"),
    "frames that overlap": (lying(moved), "frame at byte"),
    "more content than there is": (lying(put(7, ENTRIES[7][0], 5001)), "5000 bytes instead of 5001"),
    "less content than there is": (lying(put(7, ENTRIES[7][0], 4999)), "frame at byte"),
    "content of nothing": (lying(lambda e: e.insert(2, (0, 5000))), "no bytes that has content"),
    "content of gigabytes": (lying(put(0, ENTRIES[0][0], 0xFFFFFFFF)), "--ram"),
    "more entries than there are": (b"".join(FRAMES) + table(list(ENTRIES), n=len(ENTRIES) + 1), "seek table"),
    "billions of entries": (b"".join(FRAMES) + table(list(ENTRIES), n=0xFFFFFFFF), "frames"),
    "fewer entries than there are": (b"".join(FRAMES) + table(list(ENTRIES), n=3), "seek table"),
    "a later version": (b"".join(FRAMES) + table(list(ENTRIES), descriptor=4), "later version"),
    "a wrong checksum": (
        b"".join(FRAMES) + table([(*entry, 7) for entry in ENTRIES]),
        "frame at byte 0 is damaged: its content has another checksum",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_seek_table_that_lies_is_refused_with_the_byte(tmp_path: Path, lie: str) -> None:
    content, message = LIES[lie]
    error = refused(tmp_path / "x.gguf.zst", content)
    assert message in error.message
    assert any(word in error.message for word in ("byte", "frames"))


def restated(size: int) -> bytes:
    """A frame whose header states another size: its four bytes follow the magic and the descriptor."""
    frame = bytearray(compressed(DATA, checksum=False))
    assert struct.unpack_from("<I", frame, 5)[0] == len(DATA)
    assert frame[4] & 0x20
    struct.pack_into("<I", frame, 5, size)
    return bytes(frame)


@pytest.mark.parametrize("size", [len(DATA) - 1, len(DATA) + 1, 500_000])
def test_a_frame_whose_size_is_not_the_one_it_states_is_damaged(tmp_path: Path, size: int) -> None:
    assert "frame at byte 0 is damaged" in refused(tmp_path / "x.gguf.zst", restated(size)).message
    first = compressed(b"x" * 300)
    error = refused(tmp_path / "x.gguf.zst", first + restated(size))
    assert f"frame at byte {len(first)} is damaged" in error.message


def test_a_frame_without_its_size_is_refused_with_the_command_that_makes_seekable_ones(tmp_path: Path) -> None:
    path = tmp_path / "my model.gguf.zst"
    error = refused(path, compressed(DATA, stated=False))
    assert "does not state the size" in error.message
    assert f"zstd -d '{path}' && t2sz -r -s 4M -f '{tmp_path / 'my model.gguf'}'" in error.hint


def test_a_single_frame_larger_than_half_of_ram_is_refused_with_what_would_do(tmp_path: Path) -> None:
    error = refused(tmp_path / "x.gguf.zst", stream(DATA), limit=len(DATA) - 1)
    assert "single frame" in error.message
    assert f"{len(DATA):,}" in error.message
    assert "t2sz" in error.hint
    assert "--ram 1MiB" in error.hint
    assert opened(tmp_path / "x.gguf.zst", stream(DATA), limit=len(DATA)).view(5, 5).tobytes() == DATA[5:10]


def test_single_frames_that_fit_one_by_one_and_not_together_are_refused(tmp_path: Path) -> None:
    cache = FrameCache(len(DATA) * 3 // 2)
    paths = [tmp_path / f"{n}.gguf.zst" for n in range(2)]
    for path in paths:
        path.write_bytes(stream(DATA))
    first = ZstdFile(paths[0], "mmap", cache)
    with pytest.raises(BadInput, match=rf"1\.gguf\.zst.*{len(DATA) // 2:,} are free"):
        ZstdFile(paths[1], "mmap", cache)
    assert first.view(0, len(DATA)).tobytes() == DATA


def test_a_frame_too_large_among_small_ones_is_named(tmp_path: Path) -> None:
    small, large = compressed(b"x" * 100), compressed(DATA)
    error = refused(tmp_path / "x.gguf.zst", small + large + small, limit=50_000)
    assert f"frame at byte {len(small)} is too large" in error.message
    assert "t2sz" in error.hint


def header(size: int) -> bytes:
    """Of a frame that states its size and has no window."""
    return struct.pack("<IBQ", 0xFD2FB528, 0xE0, size)


def repeated(times: int) -> bytes:
    """Blocks of 128 KiB of one byte each, in four bytes."""
    block = (128 << 10) << 3 | 1 << 1
    return (
        block.to_bytes(3, "little") + b"x"
        if times == 1
        else repeated(1) * (times - 1) + ((block | 1).to_bytes(3, "little") + b"x")
    )


BOMBS = {
    "a terabyte in one frame": header(1 << 40) + repeated(1 << 16),
    "two to the 64": header((1 << 64) - 2) + repeated(9),
    "gigabytes that are not stated": FRAMES[0] + struct.pack("<IBB", 0xFD2FB528, 0, 0x38) + repeated(1 << 14),
    "gigabytes behind a small size": header(1000) + repeated(1 << 14),
    "gigabytes behind a small entry": (
        (bomb := struct.pack("<IBB", 0xFD2FB528, 0, 0x38) + repeated(1 << 14)) + table([(len(bomb), 1000)])
    ),
    "a window of gigabytes": (
        (wide := struct.pack("<IBB", 0xFD2FB528, 0, 0xF8) + repeated(4)) + table([(len(wide), 4 << 17)])
    ),
    "blocks of nothing": header(1000) + bytes(3 << 20) + b"\x01\0\0",
    "frames of nothing": (struct.pack("<IBBI", 0xFD2FB528, 0x20, 0, 1)[:9]) * 400_000,
    "skippable frames of nothing": struct.pack("<II", 0x184D2A53, 0) * 400_000,
}


def peak_memory() -> int:
    """Most bytes that this process has had in memory; 0 where that is not told."""
    try:
        return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) << 10
    except (OSError, IndexError):
        return 0


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_costs_neither_memory_nor_time(tmp_path: Path, bomb: str) -> None:
    begun = time.monotonic()
    with suppress(OSError):  # else the peak is that of the whole process so far
        Path("/proc/self/clear_refs").write_text("5")
    before = peak_memory()
    error = refused(tmp_path / "x.gguf.zst", BOMBS[bomb], limit=4 << 20)
    assert time.monotonic() - begun < 5
    assert peak_memory() - before < 32 << 20
    assert any(word in error.message for word in ("byte", "frames"))


@pytest.mark.parametrize("kind", MAKERS)
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, kind: str) -> None:
    data = np.random.default_rng(0).bytes(1000)
    whole = MAKERS[kind](data)
    for length in range(1, len(whole), 7):
        found = read_or_error(tmp_path / "x.gguf.zst", whole[:length])
        # Between two frames nothing is missing; what the file holds then tells how much it is.
        assert isinstance(found, BadInput) or (kind == "concatenated" and data.startswith(found))


@pytest.mark.parametrize("kind", MAKERS)
def test_a_flipped_bit_is_found_or_changes_nothing(tmp_path: Path, kind: str) -> None:
    data = DATA[38_000:46_000]
    whole = MAKERS[kind](data)
    chosen = random.Random(3)
    for _ in range(150):
        broken = bytearray(whole)
        broken[chosen.randrange(len(whole))] ^= 1 << chosen.randrange(8)
        found = read_or_error(tmp_path / "x.gguf.zst", bytes(broken))
        assert isinstance(found, BadInput) or found == data


def test_a_file_that_was_written_to_while_it_was_read_has_changed(tmp_path: Path) -> None:
    file = opened(tmp_path / "x.gguf.zst", seekable(DATA))
    with open(tmp_path / "x.gguf.zst", "r+b") as other:
        other.seek(10)
        other.write(bytes(5000))
    with pytest.raises(InputChanged, match="changed while it was being read"):
        file.view(0, 100)


# Folders, splits, names.


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two shards with an index."""
    path = tmp_path / "hf"
    path.mkdir()
    (path / "config.json").write_text("{}")
    weight_map = {}
    for number, name in enumerate("ab", start=1):
        file = f"model-{number:05d}-of-00002.safetensors"
        write_safetensors(path / file, {name: ("F32", np.full((40, 50), number, np.float32))})
        weight_map[name] = file
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return path


def values(path: Path) -> dict[str, float]:
    found = open_checkpoint(path)
    return {name: float(rows.read(0, 40).mean()) for name, rows in found.tensors.items()}


@pytest.mark.parametrize("index", ["index", "no index", "index with .zst", "named"])
@pytest.mark.parametrize("packed", ["both", "first", "second"])
def test_shards_are_found_compressed_or_not(folder: Path, index: str, packed: str) -> None:
    shards = sorted(folder.glob("*.safetensors"))
    for shard in {"both": shards, "first": shards[:1], "second": shards[1:]}[packed]:
        pack(shard)
    listed = folder / "model.safetensors.index.json"
    if index == "no index":
        listed.unlink()
    elif index == "index with .zst":
        listed.write_text(listed.read_text().replace(".safetensors", ".safetensors.zst"))
    assert values(listed if index == "named" else folder) == {"a": 1.0, "b": 2.0}


def test_an_absent_shard_is_told_by_its_name(folder: Path) -> None:
    packed = [pack(shard) for shard in sorted(folder.glob("*.safetensors"))]
    packed[1].unlink()
    with pytest.raises(InputMissing, match=r"model-00002-of-00002\.safetensors"):
        open_checkpoint(folder)


def test_of_a_file_that_is_there_twice_the_plain_one_is_read_and_that_is_told(folder: Path) -> None:
    first, _ = sorted(folder.glob("*.safetensors"))
    pack(first, keep=True).write_bytes(b"never opened")
    found = open_checkpoint(folder)
    assert [file.name for file in found.inputs] == [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    assert [w for w in found.warnings if ".zst" in w] == [
        f"{first.name} is read, {first.name}.zst beside it is ignored"
    ]


def test_single_files_of_a_folder_are_read_by_either_name(folder: Path) -> None:
    first, _ = sorted(folder.glob("*.safetensors"))
    packed = pack(first, keep=True)
    assert values(first) == values(packed) == {"a": 1.0}
    first.unlink()
    assert values(first) == {"a": 1.0}


def test_other_compressed_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin.zst"
    path.write_bytes(stream(b"x"))
    with pytest.raises(BadInput, match=r"only \.safetensors\.zst and \.gguf\.zst"):
        open_checkpoint(path)


@pytest.mark.parametrize("name", ["model.safetensors.zst", "x.gguf.zst", "pytorch_model.bin.zst"])
def test_compressed_weights_are_no_side_files(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"")
    assert is_weights(name)
    assert name not in open_checkpoint(folder).side_names()


@pytest.mark.parametrize("kind", KINDS)
def test_check_finds_what_it_finds_in_the_plain_file(tmp_path: Path, reference_gguf: Path, kind: str) -> None:
    plain = tmp_path / "x.gguf"
    shutil.copy(reference_gguf, plain)
    before = [(f.severity, f.message) for f in check_gguf(plain)]
    packed = pack(plain, kind, 1 << 20)
    assert [(f.severity, f.message.replace(".gguf.zst", ".gguf")) for f in check_gguf(packed)] == before
    small = check_gguf(packed, cache_bytes=1000)
    assert [f.severity for f in small] == ["error"]
    assert "--ram" in small[0].message


@pytest.fixture(scope="module")
def reference_gguf(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import streamconv

    out = tmp_path_factory.mktemp("gguf") / "x.gguf"
    streamconv.convert(tiny_model, out, type="Q8_0")
    return out
