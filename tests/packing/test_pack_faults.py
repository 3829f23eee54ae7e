"""Packing and unpacking survive death at any moment, and damage of a pack is found and named."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from faults.injector import Fault, killed_after, run
from small_models import write_safetensors

from packing.conftest import Pack, bf16, files_of
from streamconv.engine.index_file import read_progress
from streamconv.errors import BadInput, InputChanged
from streamconv.sources import FrameCache, open_checkpoint
from streamconv.sources.pack import PackFile
from streamconv.sources.pack_format import Facts, head, tail

FIRST = "model-00001-of-00002.safetensors.scpack"


@pytest.mark.parametrize("what", ["pack", "unpack"])
@pytest.mark.parametrize(
    "every", [150, pytest.param(17, marks=pytest.mark.slow), pytest.param(1, marks=pytest.mark.soak)]
)
def test_a_kill_at_any_write_leaves_what_the_next_run_completes_to_the_same_bytes(
    model: Path, command: Pack, tmp_path: Path, what: str, every: int
) -> None:
    source, root = model, tmp_path / "work"
    if what == "unpack":
        source = tmp_path / "packed"
        assert command("pack", model, source) == 0
    root.mkdir()
    words = [what, str(source), str(root / "out"), "--threads", "1"]
    whole = run(words, tmp_path / "log")
    assert whole.code == 0, whole.stderr
    right = files_of(root / "out")
    for at in range(1, whole.calls + 1, every):
        for action in ("kill before", "kill after"):
            shutil.rmtree(root)
            root.mkdir()
            run(words, tmp_path / "log", Fault(at, action))
            assert not (root / "out").exists() or files_of(root / "out") == right, (at, action)
            again = run(words, tmp_path / "log")
            assert again.code == 0, (at, action, again.stderr)
            assert files_of(root / "out") == right, (at, action)
            assert not (root / "out.streamconv").exists(), (at, action)


@pytest.mark.parametrize("call", [pytest.param(n, id=f"call {n}") for n in (12, 20, 33)])
@pytest.mark.parametrize("error", ["ENOSPC", "EIO"])
def test_a_write_that_fails_ends_the_run_and_the_next_one_goes_on(
    model: Path, tmp_path: Path, call: int, error: str
) -> None:
    root = tmp_path / "work"
    root.mkdir()
    words = ["pack", str(model), str(root / "out"), "--threads", "1"]
    assert run(words, tmp_path / "log").code == 0
    right = files_of(root / "out")
    shutil.rmtree(root)
    root.mkdir()
    failed = run(words, tmp_path / "log", Fault(call, error, sticky=True))
    assert failed.code in (73, 74), failed.stderr
    assert not (root / "out").exists()
    assert run(words, tmp_path / "log").code == 0
    assert files_of(root / "out") == right


def test_a_run_goes_on_behind_what_is_committed_and_makes_a_damaged_chunk_again(
    model: Path, tmp_path: Path, command: Pack
) -> None:
    words = ["pack", str(model), str(tmp_path / "out"), "--threads", "1"]
    whole = run(words, tmp_path / "log")
    assert whole.code == 0
    right = files_of(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    (tmp_path / ".out.streamconv").unlink()
    found, at = None, 40
    while (found is None or len(found.commits) < 3) and at < whole.calls:
        shutil.rmtree(tmp_path / "out.streamconv", ignore_errors=True)
        run(words, tmp_path / "log", Fault(at, "kill before"))
        found = read_progress(tmp_path / "out.streamconv" / "index.wal")
        at += 10
    assert found is not None
    assert len(found.commits) >= 3
    part = tmp_path / "out.streamconv" / "out" / FIRST
    data = bytearray(part.read_bytes())
    second = next(c for c in found.commits if c.chunk == 1)
    data[second.offset + 5] ^= 1
    part.write_bytes(data)
    again = run(words, tmp_path / "log")
    assert again.code == 0, again.stderr
    assert files_of(tmp_path / "out") == right


@pytest.mark.parametrize("n", [pytest.param(8, marks=pytest.mark.slow), pytest.param(40, marks=pytest.mark.soak)])
@pytest.mark.parametrize("what", ["pack", "unpack"])
def test_kills_at_random_moments_give_the_same_bytes(
    model: Path, command: Pack, tmp_path: Path, what: str, n: int, seed: int
) -> None:
    rng, source, root = random.Random(seed), model, tmp_path / "work"
    if what == "unpack":
        source = tmp_path / "packed"
        assert command("pack", model, source) == 0
    root.mkdir()
    words = [what, str(source), str(root / "out"), "--threads", "2"]
    began = time.monotonic()
    assert killed_after(60, words, tmp_path / "log") == 0
    seconds, right = time.monotonic() - began, files_of(root / "out")
    kills = 0
    while kills < n:
        shutil.rmtree(root)
        root.mkdir()
        while (code := killed_after(rng.uniform(0, 1.2 * seconds), words, tmp_path / "log")) is None:
            kills += 1
        assert code == 0, (tmp_path / "log").read_text()
        assert files_of(root / "out") == right


def content_of(path: Path) -> bytes | BadInput:
    try:
        file = PackFile(path, "mmap", FrameCache(64 << 20))
        return file.view(0, file.size).tobytes()
    except BadInput as e:
        return e


def test_any_damaged_byte_is_found_before_wrong_bytes_are_handed_out(
    model: Path, command: Pack, tmp_path: Path
) -> None:
    assert command("pack", model, tmp_path / "p") == 0
    data, plain = (tmp_path / "p" / FIRST).read_bytes(), (model / FIRST.removesuffix(".scpack")).read_bytes()
    rng = np.random.default_rng(0)
    harmless: list[int] = []
    ends = [*range(0, 400, 7), *range(len(data) - 600, len(data), 7)]
    for at in [*ends, *rng.integers(0, len(data), 150).tolist()]:
        damaged = bytearray(data)
        damaged[at] ^= 1 << int(rng.integers(8))
        path = tmp_path / "x.safetensors.scpack"
        path.write_bytes(damaged)
        found = content_of(path)
        if isinstance(found, BadInput):
            assert str(path) in found.message
        else:
            assert found == plain, at
            harmless.append(at)
    assert len(harmless) <= 2, "nothing but a bit that zstd does not use"


def test_the_error_of_a_damaged_frame_names_file_byte_and_tensor(model: Path, command: Pack, tmp_path: Path) -> None:
    assert command("pack", model, tmp_path / "p") == 0
    path = tmp_path / "p" / FIRST
    start = int(PackFile(path, "mmap", FrameCache(64 << 20))._frames.packed_at[4])
    data = bytearray(path.read_bytes())
    data[start + 200] ^= 1
    path.write_bytes(data)
    rows = open_checkpoint(tmp_path / "p").tensors["a.bf16"]
    with pytest.raises(BadInput, match=rf"{FIRST}: the frame at byte {start} is damaged: .*tensor 'a.bf16'"):
        rows.read(0, 90)
    assert command("unpack", tmp_path / "p", tmp_path / "u") == 65
    assert not (tmp_path / "u").exists()


def test_a_pack_that_is_cut_short_is_refused(model: Path, command: Pack, tmp_path: Path) -> None:
    assert command("pack", model, tmp_path / "p") == 0
    data = (tmp_path / "p" / FIRST).read_bytes()
    for size in (0, 1, 100, len(data) // 2, len(data) - 1):
        (tmp_path / "x.safetensors.scpack").write_bytes(data[:size])
        with pytest.raises(BadInput):
            PackFile(tmp_path / "x.safetensors.scpack", "mmap", FrameCache(64 << 20))


def test_a_pack_whose_digest_is_wrong_is_not_unpacked(model: Path, command: Pack, tmp_path: Path) -> None:
    assert command("pack", model, tmp_path / "p") == 0
    path = tmp_path / "p" / FIRST
    file = PackFile(path, "mmap", FrameCache(64 << 20))
    data, at, facts = path.read_bytes(), file._frames.packed_at, file.facts
    frames = [(int(at[n + 1] - at[n]), int(file._frames.sizes[n])) for n in range(1, len(at) - 2)]
    first = data[: at[1]]
    lying = Facts(facts.name, facts.size, "0" * 64, facts.data_start, facts.sample, facts.planes)
    path.write_bytes(data[: at[-2]] + tail(first, lying, frames))
    assert command("unpack", tmp_path / "p", tmp_path / "u") == 65
    assert not (tmp_path / "u").exists()


@pytest.mark.parametrize(
    "planes", [[(0, 1)], [(1, 9)], [(2, 2)], [(1, 2), (1, 2)], [(-1, 1)], [(1, 2), (0, 1)]], ids=str
)
def test_impossible_planes_are_refused(tmp_path: Path, planes: list[tuple[int, int]]) -> None:
    import zstandard

    content, name = bytes(1000), "x.safetensors"
    frame, first = zstandard.ZstdCompressor(write_checksum=True).compress(content), head(name, 1000, "")
    path = tmp_path / f"{name}.scpack"
    facts = Facts(name, 1000, "0" * 64, 0, "", planes)
    path.write_bytes(first + frame + tail(first, facts, [(len(frame), 1000)]))
    with pytest.raises(BadInput, match="cannot be planes"):
        PackFile(path, "mmap", FrameCache())


def test_a_later_version_is_refused_by_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from streamconv.sources import pack_format

    path = tmp_path / "x.safetensors.scpack"
    with monkeypatch.context() as later:
        later.setattr(pack_format, "VERSION", 2)
        first = head("x.safetensors", 0, "")
    path.write_bytes(first + tail(first, Facts("x.safetensors", 0, "0" * 64, 0, "", []), []))
    with pytest.raises(BadInput, match="version 2 of 'scpack' is not read"):
        PackFile(path, "mmap", FrameCache())


def test_a_source_that_changes_while_it_is_packed_is_noticed(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from streamconv.conversion import Options
    from streamconv.packing import execute_pack, prepare_pack
    from streamconv.progress import Silent

    packing = prepare_pack(model, tmp_path / "p", Options())
    with open(model / "model-00002-of-00002.safetensors", "r+b") as file:
        file.seek(-1, 2)
        file.write(b"\1")
    with pytest.raises(InputChanged):
        execute_pack(packing, Options(), Silent())
    assert not (tmp_path / "p").exists()


REFUSED: dict[str, tuple[Callable[[Path, Path], tuple[Path, Path]], int, str]] = {
    "a pack": (lambda m, t: (t / "p", t / "q"), 65, "is packed already"),
    "a name of the hub": (lambda m, t: (Path("org/model"), t / "q"), 66, ""),
    "a folder of nothing": (lambda m, t: (t, t / "q"), 66, ""),
    "into itself": (lambda m, t: (m, m), 64, ""),
    "above itself": (lambda m, t: (m, t), 64, ""),
    "a name of a file": (lambda m, t: (m, t / "x.safetensors"), 64, "is a folder"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_packed_is_refused_before_anything_is_written(
    model: Path, command: Pack, tmp_path: Path, case: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert command("pack", model, tmp_path / "p") == 0
    before = sorted(tmp_path.rglob("*"))
    arguments, code, text = REFUSED[case]
    assert command("pack", *arguments(model, tmp_path)) == code
    assert text in capfd.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_without_packs_is_not_unpacked(model: Path, command: Pack, tmp_path: Path) -> None:
    assert command("unpack", model, tmp_path / "u") == 66
    assert command("unpack", tmp_path / "missing", tmp_path / "u") == 66


@pytest.mark.slow
def test_memory_stays_bounded_while_a_pack_is_made_and_read(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    words = bf16(np.random.default_rng(0).standard_normal((3000, 32000)) * 0.02)
    write_safetensors(folder / "model.safetensors", {"x": ("BF16", words)})
    measured = (
        "import sys, threading, time; from streamconv.cli import main; from streamconv.progress import anonymous_memory\n"
        "most = [0]\n"
        "def look():\n"
        "    while True: most[0] = max(most[0], anonymous_memory()); time.sleep(0.005)\n"
        "threading.Thread(target=look, daemon=True).start()\n"
        "assert main(sys.argv[1:]) == 0; print(most[0])"
    )
    for words_ in (["pack", folder / "model.safetensors", tmp_path / "p"], ["unpack", tmp_path / "p", tmp_path / "u"]):
        done = subprocess.run(
            [sys.executable, "-c", measured, *map(str, words_), "--ram", "64MiB", "--quiet"],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        assert int(done.stdout.split()[-1]) < (64 + 150) << 20
