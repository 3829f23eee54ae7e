"""Whatever interrupts an edit in place, the old file or the new one is there, whole, and the same command goes on."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from faults.injector import Fault, run
from faults.power import Disk, recording

from streamconv import cli, conversion
from streamconv.conversion import execution
from streamconv.engine import patching
from streamconv.errors import StreamconvError
from streamconv.progress import Silent

#: what is changed: by one write, by a new file
EDITS = {"patch": "--set=llama.context_length=77", "new file": f"--general-name={'x' * 600}"}
SLOW, SOAK = pytest.mark.slow, pytest.mark.soak


@pytest.fixture(autouse=True)
def _often() -> Iterator[None]:
    """Let small jobs commit many times."""
    real = execution.budget_of
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(execution, "budget_of", lambda *args: replace(real(*args), window_bytes=32 << 10))
        yield


class Bench:
    """A model with its record in a folder of its own, and what an edit makes of it."""

    def __init__(self, folder: Path, converted: Path, kind: str) -> None:
        self.root, self.log, self.source = folder / "work", folder / "log", converted.parent
        self.model = self.root / converted.name
        self.command = [
            "edit", str(self.model), "--in-place", EDITS[kind], "--quiet", "--threads", "1", "--chunk-size", "16KiB",
        ]  # fmt: skip
        self.old = converted.read_bytes()
        self.clean()
        assert cli.main(self.command) == 0
        self.new = self.model.read_bytes()
        assert self.new != self.old
        self.clean()

    def clean(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.copytree(self.source, self.root)

    def wrong(self, where: str) -> list[str]:
        """What is wrong right after something happened."""
        if self.model.read_bytes() not in (self.old, self.new):
            return [f"{where}: neither the old file nor the new one"]
        try:
            damages = conversion.verify(self.model, Silent()).damages
        except StreamconvError as e:
            return [f"{where}: {e}"]
        return [f"{where}: verify says {damages[0]}"] if damages else []

    def finish(self, where: str) -> list[str]:
        """What is wrong when the command has been given again."""
        code = cli.main(self.command)
        names = sorted(p.name for p in self.root.iterdir())
        right = (
            code == 0
            and self.model.read_bytes() == self.new
            and names == [f".{self.model.name}.streamconv", self.model.name]
        )
        return self.wrong(where) + ([] if right else [f"{where}: then exit code {code}, {names}"])


@pytest.fixture
def bench(request: pytest.FixtureRequest, tmp_path: Path, converted: Path) -> Bench:
    return Bench(tmp_path, converted, request.param)


def cuts(bench: Bench, step: int, rng: random.Random) -> list[str]:
    disk, found = Disk(bench.root), []
    with recording(bench.root) as calls:
        assert cli.main(bench.command) == 0
    assert bench.model.read_bytes() == bench.new
    for n, call in enumerate(list(calls)):
        disk.take(call)
        if n % step and call[0] != "exchange":
            continue
        disk.leave(bench.root, rng)
        where = f"power cut after call {n + 1} of {len(calls)}: {call[0]}"
        found += bench.wrong(where) + bench.finish(where)
    return found


@pytest.mark.parametrize(
    ("bench", "step"),
    [
        ("patch", 7),
        ("new file", 100),
        pytest.param("patch", 1, marks=SLOW),
        pytest.param("new file", 9, marks=SLOW),
        pytest.param("new file", 1, marks=SOAK),
    ],
    indirect=["bench"],
)
def test_a_power_cut_leaves_the_old_file_or_the_new_one(bench: Bench, step: int) -> None:
    assert cuts(bench, step, random.Random(step)) == []


def kills(bench: Bench, step: int) -> list[str]:
    found: list[str] = []
    calls = run(bench.command, bench.log, Fault()).calls
    assert calls > 20
    for at in range(1, calls + 1, step):
        bench.clean()
        run(bench.command, bench.log, Fault(at, "kill before"))
        where = f"killed before call {at} of {calls}"
        found += bench.wrong(where) + bench.finish(where)
    return found


@pytest.mark.parametrize(
    ("bench", "step"),
    [
        ("patch", 17),
        ("new file", 90),
        pytest.param("patch", 3, marks=SLOW),
        pytest.param("new file", 19, marks=SLOW),
        pytest.param("patch", 1, marks=SOAK),
        pytest.param("new file", 1, marks=SOAK),
    ],
    indirect=["bench"],
)
def test_a_kill_at_any_write_leaves_the_old_file_or_the_new_one(bench: Bench, step: int) -> None:
    assert kills(bench, step) == []


def before_the_record(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("streamconv.toolbox.editing.patching.announce", lambda *args: True)


def in_two_sectors(patch: pytest.MonkeyPatch) -> None:
    """As if any header could be written over."""
    patch.setattr(patching, "changed_range", lambda a, b: (0, len(a)) if len(a) == len(b) else None)


@SLOW
@pytest.mark.parametrize("bug", [before_the_record, in_two_sectors])
def test_a_wrong_order_or_a_torn_write_would_be_noticed(
    tmp_path: Path, converted: Path, bug: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    two = {"before_the_record": EDITS["patch"], "in_two_sectors": "--set=general.quantization_version=9"}[bug.__name__]
    monkeypatch.setitem(EDITS, "patch", two)
    bench = Bench(tmp_path, converted, "patch")
    if bug is in_two_sectors:
        bench.command.append("--set=llama.context_length=77")
        bench.clean()
        assert cli.main(bench.command) == 0
        bench.new = bench.model.read_bytes()
        bench.clean()
    bug(monkeypatch)
    for seed in range(40):
        if cuts(bench, 1, random.Random(seed)):
            return
        bench.clean()
    pytest.fail("it was not noticed")


def test_a_new_file_goes_on_where_it_was_killed(tmp_path: Path, converted: Path) -> None:
    bench = Bench(tmp_path, converted, "new file")
    whole = run(bench.command, bench.log, Fault())
    bench.clean()
    assert run(bench.command, bench.log, Fault(whole.calls * 2 // 3, "kill before")).code != 0
    status = conversion.status(bench.model)
    assert status["status"] == "unfinished"
    assert 0 < status["done"] < status["total"]
    assert bench.finish("then") == []
