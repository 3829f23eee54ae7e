"""Compiled kernels on disk: kept for the next process, made again when damaged."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from streamconv.kernels import cache
from streamconv.kernels.lanes import kernel

PACKAGE = Path(cache.__file__).resolve().parent.parent
PROGRAM = """
import numpy as np, streamconv
x = np.linspace(-1, 1, 64, dtype=np.float32).reshape(2, 32)
print(streamconv.quantize(x, "Q8_0", threads=1).tobytes().hex())
"""
#: with fewer kernels
SMALL = PROGRAM.replace("Q8_0", "BF16")


def add_one(x):  # type: ignore[no-untyped-def]
    """x : float32[n], changed in place"""
    for i in range(len(x)):
        x[i] += np.float32(1)


def run(folder: Path, program: str = PROGRAM, cwd: Path | None = None, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | {"NUMBA_CACHE_DIR": str(folder)} | environment,
        cwd=cwd, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout


def kept(folder: Path) -> dict[str, int]:
    """Kernels below ``folder`` and their inodes: one that is compiled again gets another."""
    return {str(p.relative_to(folder)): p.stat().st_ino for p in folder.rglob("*.kernel")}


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with the kernels of one run, and what it printed."""
    folder = tmp_path_factory.mktemp("kernels")
    return folder, run(folder)


@pytest.fixture
def first(once: tuple[Path, str], tmp_path: Path) -> str:
    """What the run printed that left its kernels in ``tmp_path``."""
    shutil.copytree(once[0], tmp_path, dirs_exist_ok=True)
    return once[1]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that this process keeps kernels in."""
    monkeypatch.setattr(cache, "_place", lambda: (tmp_path, ""))
    monkeypatch.setattr(cache, "_failure", "")
    return tmp_path


@pytest.mark.slow
def test_kernels_that_a_program_compiled_are_there_for_later_ones_and_never_run_damaged(
    tmp_path: Path, first: str
) -> None:
    kernels = kept(tmp_path)
    assert kernels
    assert run(tmp_path) == first
    assert kept(tmp_path) == kernels

    damaged = next(tmp_path.rglob("q8_0*.kernel"))
    name = str(damaged.relative_to(tmp_path))
    whole = damaged.read_bytes()
    facts = damaged.stat()
    content = bytearray(whole)
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    os.utime(damaged, ns=(facts.st_atime_ns, facts.st_mtime_ns))  # bits rot without a word
    assert run(tmp_path) == first
    assert damaged.read_bytes() != content
    replaced = kept(tmp_path)
    assert replaced.pop(name) != kernels.pop(name)
    assert replaced == kernels


def test_what_is_not_what_was_kept_is_never_given_out(place: Path) -> None:
    cache.save("a.kernel", "sources", b"code")
    whole = (place / "a.kernel").read_bytes()
    assert cache.load("a.kernel", "sources") == b"code"
    assert cache.load("a.kernel", "other sources") is None
    for at in range(len(whole)):
        for other in (whole[:at], whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :], whole + whole[:at]):
            if other != whole:
                (place / "a.kernel").write_bytes(other)
                assert cache.load("a.kernel", "sources") is None, at


@pytest.mark.parametrize("other", ["writable", "link", "hard link", "fifo", "folder"])
def test_what_somebody_else_could_have_put_there_is_never_given_out(place: Path, other: str) -> None:
    cache.save("a.kernel", "sources", b"code")
    kernel, elsewhere = place / "a.kernel", place / "elsewhere"
    if other == "writable":
        kernel.chmod(0o664)
    else:
        kernel.rename(elsewhere)
    if other == "link":
        kernel.symlink_to(elsewhere)
    elif other == "hard link":
        kernel.hardlink_to(elsewhere)
    elif other == "fifo":
        os.mkfifo(kernel)
    elif other == "folder":
        kernel.mkdir()
    assert cache.load("a.kernel", "sources") is None
    cache.save("a.kernel", "sources", b"code again")
    if other == "folder":
        assert kernel.is_dir()
        assert "a.kernel" not in cache.not_kept()
        assert "irectory" in cache.not_kept()
    else:
        assert cache.load("a.kernel", "sources") == b"code again"
    assert other == "writable" or elsewhere.read_bytes().endswith(b"code")


def test_a_full_disk_costs_compiling_again_and_leaves_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        cache.save("a.kernel", "sources", b"code")
    assert not list(place.iterdir())
    assert cache.not_kept() == f"{place}: No space left on device"
    cache.save("b.kernel", "sources", b"code")
    assert not list(place.iterdir())


def test_what_was_compiled_is_known_to_later_processes_and_without_a_folder_to_this_one(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "streamconv.quant.formats.q8_0"
    monkeypatch.setattr(cache, "_known", set())
    assert not cache.knows("Q8_0", module)
    cache.learn("Q8_0", module)
    monkeypatch.setattr(cache, "_known", set())
    assert cache.knows("Q8_0", module)
    assert not cache.knows("Q8_0 with imatrix", module)
    assert not cache.knows("Q8_0", "streamconv.quant.formats.q4_k")
    monkeypatch.setattr(cache, "_place", lambda: (None, "why"))
    assert not cache.knows("Q8_0", module)
    cache.learn("Q8_0", module)
    assert cache.knows("Q8_0", module)


@pytest.mark.slow
def test_source_trees_and_versions_that_share_a_folder_keep_each_others_kernels(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    for name in ("a", "b"):
        shutil.copytree(PACKAGE, tmp_path / name / "streamconv", ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "b" / "streamconv" / "kernels" / "lanes.py").open("a") as lanes:
        lanes.write("# changed\n")
    older = "from streamconv.kernels import cache\ncache._version = lambda: '0.0.9'\n" + SMALL
    runs = [(SMALL, tmp_path / "a"), (SMALL, tmp_path / "b"), (older, tmp_path / "a")]
    found: dict[str, int] = {}
    for program, tree in runs:  # the working folder comes first among those of modules
        before = found
        run(folder, program, tree)
        found = kept(folder)
        assert before.items() < found.items()
    for program, tree in runs:  # once more: nothing is compiled again, nothing is gone
        run(folder, program, tree)
        assert kept(folder) == found


def test_the_environment_and_others_kernels_in_the_process_are_left_alone(tmp_path: Path) -> None:
    program = (
        "import os; before = dict(os.environ)\n" + PROGRAM + "assert dict(os.environ) == before\n"
        "import own; own.f(1)\nprint(own.f.stats.cache_path)"
    )
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "own.py").write_text("import numba\n@numba.njit(cache=True)\ndef f(x): return x\n")
    path = run(tmp_path / "cache", program, PYTHONPATH=str(tmp_path / "modules")).split()[-1]
    assert Path(path).parent == tmp_path / "cache"
    assert list(Path(path).glob("*.nbi"))
    assert kept(tmp_path / "cache")


def test_what_was_compiled_for_vectors_of_one_width_is_not_given_out_for_another(place: Path) -> None:
    widths = (None, 256, 512)
    for _ in range(2):  # compiled, and read again
        found = [kernel(add_one, vector_bits=bits) for bits in widths]
        for compiled in found:
            x = np.zeros(64, np.float32)
            compiled(x)
            assert x.tolist() == [1.0] * 64
        assert len(kept(place)) == len(widths)
    assert [sum(compiled.stats.cache_hits.values()) for compiled in found] == [1, 1, 1]
