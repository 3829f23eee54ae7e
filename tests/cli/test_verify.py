"""``streamconv verify`` over finished outputs of every kind: what is as it was made, and every way in which it may not be."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_models import gemma2, write_safetensors

import streamconv
from streamconv import cli, conversion
from streamconv.conversion import verifying
from streamconv.engine import verify
from streamconv.engine.record import load, record_path
from streamconv.progress import Silent

#: kind -> name of the output, options
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "file": ("out.gguf", {"type": "Q8_0"}),
    "shards": ("out.gguf", {"type": "F16", "split_max_tensors": 9}),
    "types": ("out-{type}.gguf", {"type": "F16,Q8_0"}),
    "folder": ("out", {"type": "F16", "max_shard_bytes": 64 << 10}),
}
Made = Callable[[str], Path]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder a kind, each with an output of it."""
    root = tmp_path_factory.mktemp("finished")
    gemma2(root / "m")
    for kind, (name, options) in KINDS.items():
        (root / kind).mkdir()
        streamconv.convert(root / "m", root / kind / name, chunk_bytes=8 << 10, **options)
    return root


@pytest.fixture
def made(finished: Path, tmp_path: Path) -> Made:
    """Function that gives the name of a fresh copy of an output of a kind."""

    def copy(kind: str) -> Path:
        folder = tmp_path / kind
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(finished / kind, folder)
        return folder / KINDS[kind][0]

    return copy


def found(output: Path) -> conversion.Verified:
    return conversion.verify(output, Silent())


def files_of(output: Path) -> list[Path]:
    return sorted(p for p in output.parent.rglob("*") if p.is_file() and not p.name.startswith("."))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_as_it_was_made_is_intact_under_every_name_it_has(
    kind: str, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = made(kind)
    whole = found(output)
    assert (whole.damages, whole.notes, whole.n_files) == ([], [], len(files_of(output)))
    monkeypatch.chdir(output.parent)
    names = [output.name, f"./{output.name}", f"../{kind}/{output.name}", *map(str, files_of(output))]
    for name in [*names, *(p.relative_to(output.parent) for p in files_of(output))]:
        assert cli.main(["verify", str(name), "--quiet"]) == 0, name
    if kind == "folder":
        assert cli.main(["verify", "out/", "--quiet"]) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_anywhere_is_named_by_file_tensor_and_bytes(kind: str, made: Made, seed: int) -> None:
    output, rng = made(kind), random.Random(f"{seed} {kind}")
    for path in files_of(output):
        data = path.read_bytes()
        owner = next(iter(verifying.records(path).values()))
        (record,) = [f for f in owner.files if (output.parent / f.name) == path]
        inner = [(r.offset, r.length, r.tensor) for r in rng.sample(record.ranges, min(4, len(record.ranges)))]
        ends = [0, record.header_bytes, *(r.offset + r.length for r in record.ranges)]
        gaps = [(a, b - a, "") for a, b in zip(ends[1:], [r.offset for r in record.ranges], strict=False) if b > a]
        for offset, length, tensor in [(0, record.header_bytes, ""), *inner, *gaps[:3]]:
            at = offset + rng.randrange(length)
            path.write_bytes(data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :])
            (damage,) = found(output).damages
            assert damage.path == path
            assert damage.tensor == tensor
            assert damage.offset <= at < damage.offset + damage.length
        path.write_bytes(data)
    assert found(output).damages == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_cut_or_longer_or_gone_or_another_is_named(kind: str, made: Made) -> None:
    output = made(kind)
    for path in files_of(output):
        data = path.read_bytes()
        for after in (data[:-1], data[: len(data) // 2], b"", data + b"\0", data + data):
            path.write_bytes(after)
            first = found(output).damages[0]
            assert (first.path, first.offset) == (path, min(len(data), len(after)))
            assert first.length == abs(len(data) - len(after))
        path.unlink()
        assert found(output).damages[0].path == path
        path.mkdir()
        assert found(output).damages[0].path == path
        path.rmdir()
        path.symlink_to("/dev/zero")
        assert found(output).damages[0].path == path
        path.unlink()
        os.mkfifo(path)
        assert found(output).damages[0].path == path
        path.unlink()
        path.write_bytes(data)
    assert found(output).damages == []


@pytest.mark.parametrize("kind", ["shards", "types", "folder"])
def test_files_that_changed_places_are_named(kind: str, made: Made) -> None:
    output = made(kind)
    one, other = [p for p in files_of(output) if p.suffix in (".gguf", ".safetensors")][:2]
    data = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(data)
    assert {d.path for d in found(output).damages} == {one, other}


def test_what_a_loader_would_read_beside_the_output_is_damage_and_a_note_of_the_users_is_none(made: Made) -> None:
    output = made("folder")
    (output / "notes.txt").write_text("mine")
    result = found(output)
    assert (result.damages, result.notes) == ([], [f"{output / 'notes.txt'} is not part of the output"])
    (output / "model-00009-of-00009.safetensors").write_bytes(b"")
    (damage,) = found(output).damages
    assert damage.path.name == "model-00009-of-00009.safetensors"


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_record_vouches_for_nothing(kind: str, made: Made, seed: int, capsys: Any) -> None:
    output, rng = made(kind), random.Random(f"{seed} {kind} record")
    path = next(output.parent.glob(".*.streamconv"))
    text = path.read_bytes()
    for _ in range(40):
        at = rng.randrange(len(text) - 1)
        path.write_bytes(text[:at] + bytes([text[at] ^ 1 << rng.randrange(7)]) + text[at + 1 :])
        assert load(path) is None, f"byte {at} of {path.name}, seed {seed}"
    assert cli.main(["verify", str(output)]) == 66
    assert str(path) in capsys.readouterr().err
    path.unlink()
    assert cli.main(["verify", str(output)]) == 66
    assert "has no record to compare with" in capsys.readouterr().err


def test_types_are_compared_only_with_their_own_records(made: Made) -> None:
    output = made("types")
    (output.parent / "out-notes.gguf").write_bytes(b"no type has this name")
    assert found(output).n_files == 2
    record_path(output.with_name("out-F16.gguf")).unlink()
    with pytest.raises(streamconv.errors.InputMissing, match=r"out-F16\.gguf has no record"):
        found(output)


def test_where_nothing_is_nothing_is_compared(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "foreign.gguf").write_bytes(b"x")
    for name, words in (
        ("none.gguf", "does not exist"),
        ("foreign.gguf", "has no record"),
        ("none-{type}.gguf", "does not exist"),
    ):
        assert cli.main(["verify", str(tmp_path / name)]) == 66
        assert words in capsys.readouterr().err
    for name in ("", ".", "..", "/"):
        assert cli.main(["verify", name]) == 64
        capsys.readouterr()


def test_json_tells_what_the_text_tells(made: Made, capsys: Any) -> None:
    output = made("file")
    assert cli.main(["verify", str(output), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (facts["status"], facts["files"], facts["bytes"]) == ("intact", 1, output.stat().st_size)
    data = bytearray(output.read_bytes())
    data[-40] ^= 1
    output.write_bytes(data)
    assert cli.main(["verify", str(output), "--json"]) == 65
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    (damage,) = facts["damages"]
    assert (facts["status"], damage["path"], bool(damage["name"])) == ("damaged", str(output), True)
    assert damage["offset"] + damage["length"] <= len(data)


def test_an_output_that_is_replaced_meanwhile_is_no_damage(made: Made, finished: Path, monkeypatch: Any) -> None:
    output, replaced = made("file"), []
    real = verify.damages

    def damages(*args: Any) -> Any:
        if not replaced:
            replaced.append(True)
            streamconv.convert(finished / "m", output, type="F16", update=True)
        return real(*args)

    monkeypatch.setattr(verifying, "damages", damages)
    assert found(output).damages == []
    assert replaced


def test_a_file_of_any_size_takes_little_memory(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    write_safetensors(tmp_path / "m" / "model.safetensors", {"x": ("BF16", np.zeros((4096, 6000), "<u2"))})
    streamconv.convert(tmp_path / "m" / "model.safetensors", tmp_path / "out")
    tracemalloc.start()
    assert found(tmp_path / "out").n_bytes > 40 << 20
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 24 << 20


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_at_once(made: Made, signum: int) -> None:
    output = made("file")
    record = load(record_path(output))
    assert record is not None
    slow = (
        "import time; from streamconv import cli; from streamconv.engine import files; real = files.pread_exactly\n"
        "def read(*a):\n print('reading', flush=True); time.sleep(1 if a[2] else 0); return real(*a)\n"
        "files.pread_exactly = read\n"
        f"raise SystemExit(cli.main(['verify', {str(output)!r}]))"
    )
    process = subprocess.Popen([sys.executable, "-c", slow], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for _ in range(4):
        process.stdout.readline()
    began = time.monotonic()
    process.send_signal(signum)
    _, said = process.communicate(timeout=30)
    assert process.returncode == -signum, said
    assert "Traceback" not in said
    assert time.monotonic() - began < 5


def test_plan_and_status_tell_what_convert_then_does(finished: Path, tmp_path: Path, here: Any) -> None:
    model, output = shutil.copytree(finished / "m", tmp_path / "m"), tmp_path / "x.gguf"
    command = (model, output, "--type", "Q8_0", "--chunk-size", "8KiB", "--threads", "1")
    assert here("status", output).code == 66
    assert here("convert", *command, "--stop-after", "0s").code == 75
    assert "unfinished" in here("status", output).out
    weights = model / "model.safetensors"
    assert "refuse" not in here("plan", *command).out
    assert "planned differently" in here("plan", *command, "--model-name", "other").out
    assert here("convert", *command, "--model-name", "other").code == 78
    data = weights.read_bytes()
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert "was changed after" in here("plan", *command).out
    assert here("convert", *command).code == 65
    assert "refuse" not in here("plan", *command, "--update").out
    weights.write_bytes(data)
    assert here("convert", *command).code == 0
    assert "is complete" in here("status", output).out
    os.utime(weights)
    told = here("plan", *command).out
    assert "refuse" not in told
    assert "read contents and compare" in told
    assert here("convert", *command).code == 0
    assert "compare" not in here("plan", *command).out
