"""Limits of the shell on open files, threads and memory, and names that are too long: each ends with its code and says which."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf_reader
import pytest
from combined import combined

from streamconv import errors

Here = Callable[..., Any]
#: of Linux: ``prctl`` to give up a capability for good, and the two that lift the limit on threads
_DROP, _RESOURCE, _ADMIN = 24, 24, 21
#: no user of this machine, so nobody's threads are counted with ours
_NOBODY = 54321


def limited(limit: Callable[[], None], *arguments: object) -> tuple[int, str]:
    """Run the command line in a process that calls ``limit`` first; its exit code and stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "streamconv", *map(str, arguments)], preexec_fn=limit, timeout=100,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stderr


def of(kind: int, soft: int, hard: int | None = None) -> Callable[[], None]:
    return lambda: resource.setrlimit(kind, (soft, soft if hard is None else hard))


@pytest.fixture
def sharded(small: Path, tmp_path: Path) -> Path:
    """The small checkpoint, every tensor in a shard of its own."""
    raw = (small / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    names = sorted(name for name in header if name != "__metadata__")
    folder = tmp_path / "sharded"
    folder.mkdir()
    for path in small.iterdir():
        if path.name != "model.safetensors":
            (folder / path.name).write_bytes(path.read_bytes())
    files = {}
    for number, name in enumerate(names):
        begin, end = header[name]["data_offsets"]
        own = json.dumps({name: header[name] | {"data_offsets": [0, end - begin]}}).encode()
        files[name] = f"model-{number + 1:05}-of-{len(names):05}.safetensors"
        data = raw[8 + length + begin : 8 + length + end]
        (folder / files[name]).write_bytes(struct.pack("<Q", len(own)) + own + data)
    index = {"metadata": {}, "weight_map": files}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def test_the_soft_limit_on_open_files_is_no_limit_on_shards(here: Here, sharded: Path, tmp_path: Path) -> None:
    assert len(list(sharded.glob("*.safetensors"))) > 15
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limit = of(resource.RLIMIT_NOFILE, 24, hard)
    assert limited(limit, "convert", sharded, tmp_path / "x.gguf", "--type", "f16", "--quiet") == (0, "")
    assert here("convert", sharded, tmp_path / "y.gguf", "--type", "f16", "--quiet").code == 0
    assert (tmp_path / "x.gguf").read_bytes() == (tmp_path / "y.gguf").read_bytes()


@pytest.mark.parametrize("most", [12, 24, 30])
def test_a_hard_limit_on_open_files_that_is_too_low_ends_with_74_before_anything_is_written(
    sharded: Path, tmp_path: Path, most: int
) -> None:
    code, err = limited(of(resource.RLIMIT_NOFILE, most), "convert", sharded, tmp_path / "x.gguf", "--type", "f16")
    assert code == 74, err
    assert f"too many files are open; the limit of this process is {most}" in err
    assert f"{sharded}/model-000" in err
    assert "ulimit -Hn" in err
    assert os.listdir(tmp_path) == ["sharded"]


@pytest.mark.slow
def test_wherever_files_run_out_the_run_ends_with_74_and_can_go_on(sharded: Path, tmp_path: Path) -> None:
    codes = []
    for most in range(34, 80, 2):
        code, err = limited(of(resource.RLIMIT_NOFILE, most), "convert", sharded, tmp_path / "x.gguf", "--type", "f16")
        codes.append(code)
        assert code in (0, 74), err
        assert code == 0 or "too many files are open" in err
        if code == 0:
            break
    assert codes[0] == 74
    assert codes[-1] == 0
    assert len(gguf_reader.read(tmp_path / "x.gguf").tensors) > 15
    assert [n for n in sorted(os.listdir(tmp_path)) if not n.startswith(".")] == ["sharded", "x.gguf"]


def few_threads(most: int) -> Callable[[], None]:
    """Let the system grant ``most`` threads in all; it asks no root, so become somebody else who may read what root may."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NPROC, (most, most))
        if os.geteuid() == 0:
            for capability in (_RESOURCE, _ADMIN):
                ctypes.CDLL(None).prctl(_DROP, capability, 0, 0, 0)
            os.setresuid(_NOBODY, 0, 0)

    return limit


@pytest.fixture
def grants_no_thread() -> None:
    """Skips where no limit on threads is kept."""
    tried = "import threading\ntry: threading.Thread(target=int).start()\nexcept RuntimeError: print('refused')"
    if sys.platform == "linux":
        done = subprocess.run(
            [sys.executable, "-S", "-c", tried], preexec_fn=few_threads(1), capture_output=True, text=True, check=False
        )
        if "refused" in done.stdout:
            return
    pytest.skip("this system does not keep RLIMIT_NPROC")


@pytest.mark.usefixtures("grants_no_thread")
def test_a_system_that_grants_too_few_threads_ends_with_74(small: Path, tmp_path: Path) -> None:
    command = ["convert", small, tmp_path / "x.gguf", "--type", "f16", "--threads", 2, "--quiet"]
    code, err = limited(few_threads(1), *command)
    assert (code, "threads" in err, "--threads 1" in err) == (74, True, True), err
    assert "OpenBLAS" not in err
    assert limited(lambda: None, *command) == (0, "")


@pytest.mark.usefixtures("grants_no_thread")
def test_a_process_that_cannot_be_started_ends_with_74(data: Path, tmp_path: Path) -> None:
    model = data / "checkpoints" / "llama3-bpe" / "hf"
    code, err = limited(few_threads(1), "convert", model, tmp_path / "x.gguf", "--type", "f16", "--threads", 1)
    assert (code, "no more processes" in err) == (74, True), err


@pytest.mark.skipif(sys.platform != "linux", reason="others do not keep RLIMIT_AS")
@pytest.mark.parametrize("mib", [
    30, 140, *(pytest.param(mib, marks=pytest.mark.slow) for mib in (20, 60, 100, 200, 300, 360, 400, 420, 440, 480, 540)),
])  # fmt: skip
def test_too_little_memory_ends_with_74_and_the_same_command_goes_on(
    tiny_model: Path, tmp_path: Path, mib: int
) -> None:
    command = ["convert", tiny_model, tmp_path / "x.gguf", "--type", "q8_0", "--threads", 16, "--quiet"]
    code, err = limited(of(resource.RLIMIT_AS, mib << 20), *command)
    assert code in ((74,) if mib < 500 else (0, 74)), err
    assert code == 0 or "not enough" in err or "threads" in err
    assert code == 0 or "ulimit -v" in err
    if os.listdir(tmp_path):
        assert limited(lambda: None, *command) == (0, "")


LONG, DEEP = "x" * 300, "/".join(["y" * 200] * 25)


@pytest.mark.parametrize("arguments", [
    ["convert", "SRC", f"{LONG}.gguf"], ["convert", "SRC", LONG], ["convert", "SRC", f"{DEEP}/x.gguf"],
    ["convert", "SRC", DEEP], ["convert", "SRC", f"o-{{type}}{LONG}.gguf", "--type", "F16,Q8_0"],
    ["convert", "SRC", f"{'z' * 251}.gguf"], ["plan", "SRC", f"{'z' * 251}.gguf"], ["plan", "SRC", LONG],
    ["plan", "SRC", f"{'z' * 240}.gguf", "--type", "F16", "--split-max-tensors", "5"],
    ["plan", "SRC", f"{DEEP}/x.gguf"], ["extract-lora", "SRC", "SRC", LONG],
    ["convert", "SRC", "x.gguf", "--report", LONG], ["convert", "SRC", "x.gguf", "--report", f"{DEEP}/r"],
    ["convert", "SRC", "x.gguf", "--report", "z" * 256],
], ids=lambda words: f"{words[0]} {words[-2][:9]} {words[-1][:12]}")  # fmt: skip
def test_an_output_whose_name_is_too_long_ends_with_73_before_any_work(
    here: Here, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    result = here(*(str(small) if word == "SRC" else word for word in arguments), "--quiet")
    assert result.code == 73, result
    assert "too long" in result.err
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("size", [244, 245, 250, 255])
@pytest.mark.parametrize("letter", ["z", "é"])
def test_an_output_with_the_longest_name_there_can_be_is_made_and_goes_on_after_a_stop(
    here: Here, small: Path, tmp_path: Path, size: int, letter: str
) -> None:
    stem = letter * ((size - 5) // len(letter.encode()))
    output = tmp_path / f"{stem}{'a' * (size - 5 - len(stem.encode()))}.gguf"
    command = ["convert", small, output, "--type", "F16", "--chunk", "64KiB", "--threads", 1]
    assert here(*command, "--stop-after", "0").code == 75
    other = output.with_name(f"{output.name[:-6]}b.gguf")
    assert here("convert", small, other, "--type", "F16").code == 0, "that of the other name is not in its way"
    assert here("status", output).code in (0, 75)
    assert here(*command).code == 0
    assert here("verify", output).code == 0
    assert "nothing to do" in here(*command, "--update").out
    assert {name for name in os.listdir(tmp_path) if not name.startswith(".")} == {output.name, other.name}


@pytest.mark.parametrize(("name", "arguments"), combined(
    [LONG, DEEP, f"{LONG}.gguf", f"{DEEP}.safetensors", f"{DEEP}.gguf"], [
        ["convert", "NAME", "x.gguf"], ["extract-lora", "SRC", "NAME", "x"], ["inspect", "NAME"],
        ["convert", "SRC", "x.gguf", "--imatrix", "NAME"], ["convert", "SRC", "x.gguf", "--tensor-type-file", "NAME"],
    ],
), ids=lambda given: given[-12:] if isinstance(given, str) else f"{given[0]} {given[-2]}")  # fmt: skip
def test_an_input_whose_name_is_too_long_ends_with_66(
    here: Here, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = here(*({"SRC": str(small), "NAME": name}.get(word, word) for word in arguments))
    assert result.code == 66, result
    assert "name is too long" in result.err
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no device without end")
def test_a_device_without_end_is_no_list_of_types(here: Here, small: Path, tmp_path: Path) -> None:
    result = here("convert", small, tmp_path / "x.gguf", "--tensor-type-file", "/dev/zero")
    assert (result.code, "/dev/zero is not a regular file" in result.err) == (65, True)


def test_whatever_ran_out_while_a_file_was_opened_is_not_said_of_the_file(
    here: Here, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(real: Callable[..., Any]) -> Callable[..., Any]:
        def opened(path: Any, *args: Any, **kwargs: Any) -> Any:
            if str(path).endswith("generation_config.json"):
                raise OSError(24, "Too many open files", str(path))
            return real(path, *args, **kwargs)

        return opened

    model = Path(shutil.copytree(small, tmp_path / "model"))
    (model / "generation_config.json").write_text("{}")
    monkeypatch.setattr(Path, "open", failing(Path.open))
    monkeypatch.setattr(os, "open", failing(os.open))
    result = here("convert", model, tmp_path / "x.gguf", "--type", "f16")
    assert (result.code, "too many files are open" in result.err) == (74, True), result


def test_75_is_of_locks_and_stops_only_for_cron_takes_it_for_go_on_later() -> None:
    classes = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, errors.StreamconvError)]
    assert {e.__name__ for e in classes if e.exit_code == 75} == {"TryAgain", "Locked", "Stopped", "Interrupted"}
    package = Path(errors.__file__).parent
    raised = [p.name for p in package.rglob("*.py") if "TryAgain(" in p.read_text().replace("class Try", "")]
    assert set(raised) <= {"errors.py"}
