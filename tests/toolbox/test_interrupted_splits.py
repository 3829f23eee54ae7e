"""A split or a join that is killed at any moment goes on, and no mixture of shards is ever taken for a model."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import small_gguf
from faults.injector import Fault, run
from faults.power import Disk, recording

from streamconv import cli

SLOW, SOAK = pytest.mark.slow, pytest.mark.soak


class Bench:
    """A command, and the files that it makes."""

    def __init__(self, folder: Path, command: Sequence[str]) -> None:
        self.root, self.log = folder / "work", folder / "log"
        self.command = [*command, "--quiet", "--threads", "1"]
        self.root.mkdir()
        assert cli.main(self.command) == 0
        self.right = self.contents()
        self.clean()

    def clean(self) -> None:
        shutil.rmtree(self.root)
        self.root.mkdir()

    def contents(self) -> dict[str, bytes]:
        named = (p for p in self.root.iterdir() if not p.name.startswith("."))
        return {p.name: p.read_bytes() if p.is_file() else b"a folder" for p in named}

    def wrong(self, where: str) -> list[str]:
        there = {name: data for name, data in self.contents().items() if name in self.right}
        return [f"{where}: {name} is wrong" for name, data in there.items() if data != self.right[name]]

    def finish(self, where: str) -> list[str]:
        code = cli.main(self.command)
        found = self.contents()
        return [] if code == 0 and found == self.right else [f"{where}: then exit code {code}, {sorted(found)}"]


@pytest.fixture
def bench(request: pytest.FixtureRequest, tmp_path: Path, toy: Path) -> Bench:
    if request.param == "split":
        return Bench(tmp_path, ["split", str(toy), str(tmp_path / "work" / "s"), "--split-max-tensors", "3"])
    assert cli.main(["split", str(toy), str(tmp_path / "s"), "--split-max-tensors", "3", "--quiet"]) == 0
    return Bench(tmp_path, ["join", str(tmp_path / "s-00001-of-00003.gguf"), str(tmp_path / "work" / "j.gguf")])


@pytest.mark.parametrize(
    ("bench", "step"),
    [("split", 29), pytest.param("join", 5, marks=SLOW), pytest.param("split", 1, marks=SOAK)],
    indirect=["bench"],
)
def test_a_kill_at_any_write_costs_work_at_most(bench: Bench, step: int) -> None:
    found: list[str] = []
    calls = run(bench.command, bench.log, Fault()).calls
    assert calls > 20
    for at in range(1, calls + 1, step):
        bench.clean()
        run(bench.command, bench.log, Fault(at, "kill after"))
        where = f"killed after call {at} of {calls}"
        found += bench.wrong(where) + bench.finish(where)
    assert found == []


@pytest.mark.parametrize(
    ("bench", "step"),
    [("split", 31), pytest.param("join", 5, marks=SLOW), pytest.param("split", 1, marks=SOAK)],
    indirect=["bench"],
)
def test_a_power_cut_costs_work_at_most(bench: Bench, step: int) -> None:
    disk, found, rng = Disk(bench.root), [], random.Random(step)
    with recording(bench.root) as calls:
        assert cli.main(bench.command) == 0
    for n, call in enumerate(list(calls)):
        disk.take(call)
        if n % step == 0:
            disk.leave(bench.root, rng)
            where = f"power cut after call {n + 1} of {len(calls)}: {call[0]}"
            found += bench.wrong(where) + bench.finish(where)
    assert found == []


@SOAK
def test_shards_of_another_model_are_replaced_as_a_whole(tmp_path: Path, toy: Path) -> None:
    other = small_gguf.write(tmp_path / "other.gguf", {**small_gguf.KEYS, "general.name": ("str", "other")})
    bench = Bench(tmp_path, ["split", str(toy), str(tmp_path / "work" / "s"), "--split-max-tensors", "3", "--update"])
    assert cli.main(["split", str(other), str(bench.root / "s"), "--split-max-tensors", "3", "--quiet"]) == 0
    shutil.copytree(bench.root, tmp_path / "old")
    old = bench.contents()
    for at in range(1, run(bench.command, bench.log, Fault()).calls + 1, 3):
        bench.clean()
        shutil.copytree(tmp_path / "old", bench.root, dirs_exist_ok=True)
        run(bench.command, bench.log, Fault(at, "kill before"))
        first = bench.contents().get("s-00001-of-00003.gguf")
        files = {name: data for name, data in bench.contents().items() if name in bench.right}
        assert first is None or files in (old, bench.right), at
        assert bench.finish(f"killed before call {at}") == []
