"""A finished output is replaced by another one, and the run dies, fails or loses its power on the way.

At no moment a mixture of the two models loads under final names: what loads is the old model or the new one, whole. The same
command heals what is left, and so does another one, and nothing else in the folder is touched.
"""

from __future__ import annotations

import random
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from small_models import gemma2

from streamconv import cli
from streamconv.errors import StreamconvError
from streamconv.sources import mapped, open_checkpoint

from .injector import Fault, Result, run
from .jobs import ALL, COMMON, SOAK
from .power import Disk, recording

SLOW = pytest.mark.slow
Tell = Callable[[str], None]
OTHER = ["--model-name", "other"]
SPLIT = ["--split-max-tensors", "6"]
#: kind -> name of the output, what the old one was made with, what the new one is made with
KINDS: dict[str, tuple[str, list[str], list[str]]] = {
    "file": ("out.gguf", ["--type", "BF16"], ["--type", "F16"]),
    "shards": ("out.gguf", ["--type", "BF16", *SPLIT], ["--type", "BF16", *SPLIT, *OTHER]),
    "shards of another number": ("out.gguf", ["--type", "BF16", *SPLIT], ["--type", "BF16", "--split-max-tensors", "9"]),
    "shards for a file": ("out.gguf", ["--type", "BF16"], ["--type", "BF16", *SPLIT]),
    "a file for shards": ("out.gguf", ["--type", "BF16", *SPLIT], ["--type", "BF16"]),
    "folder": ("out", ["--type", "BF16", "--max-shard-size", "64KiB"], ["--type", "F16", "--max-shard-size", "64KiB"]),
    "folder of another number": (
        "out", ["--type", "BF16", "--max-shard-size", "64KiB"], ["--type", "BF16", "--max-shard-size", "100KiB"],
    ),
    "types": ("out-{type}.gguf", ["--type", "F16,Q8_0"], ["--type", "F16,Q8_0", *OTHER]),
    "types in shards": ("out-{type}.gguf", ["--type", "F16,Q8_0", *SPLIT], ["--type", "F16,Q8_0", *SPLIT, *OTHER]),
    # The files of both have the same headers: only the order of names can tell them apart.
    "shards of changed contents": ("out.gguf", ["--type", "BF16", *SPLIT], ["--type", "BF16", *SPLIT]),
    "folder of changed contents": ("out", ["--max-shard-size", "64KiB"], ["--max-shard-size", "64KiB"]),
}  # fmt: skip
FOREIGN = ("notes.txt", "out", "out-notes.gguf", "out-00001-of-00007.gguf.bak", ".out.gguf.old", "old-1")


@pytest.fixture(scope="module", autouse=True)
def _few_samples() -> Iterator[None]:
    """Leave room in a small file for changes that planning does not see."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mapped, "_SAMPLES", 2)
        patch.setattr(mapped, "_SAMPLE_BYTES", 64)
        yield


class Replaced:
    """An old output in the place of which a new one is made.

    Attributes
    ----------
    old, new, third : the files of either by name; the third is what yet another command gives
    """

    def __init__(self, folder: Path, kind: str) -> None:
        self.kind, (name, before, after) = kind, KINDS[kind]
        folder.mkdir()
        self.log, self.root = folder / "log", folder / "work"
        gemma2(folder / "m")
        model = str(folder / "m")
        self.weights = folder / "m" / "model.safetensors"
        self._bytes = self.weights.read_bytes()
        self.changes = "changed contents" in kind
        ending = [str(self.root / name), *COMMON]
        self.first = ["convert", model, *ending, *before]
        self.command = ["convert", model, *ending, *after, "--update"]
        last = ["--type", "F32"]
        if name != "out":
            last = ["--type", "F16,Q8_0" if "{" in name else "F32", "--model-name", "3"]
        self.another = ["convert", model, *ending, *last, "--update"]
        self.new, self.third = self._alone(self.command), self._alone(self.another)
        self.set_up()
        self.old = self.files()
        self.calls = self.run().calls
        assert self.files() == self.new
        assert self.old != self.new

    def _alone(self, command: list[str]) -> dict[str, bytes]:
        self.root.mkdir()
        self._contents(new=True)
        assert cli.main([*command, "--quiet"]) == 0
        found = self.files()
        shutil.rmtree(self.root)
        return found

    def _contents(self, new: bool) -> None:
        if self.changes:
            data = bytearray(self._bytes)
            for at in range(len(data) // 4, len(data) * 3 // 4, 5000) if new else ():
                data[at - at % 4 + 2] ^= 0x21
            self.weights.write_bytes(data)

    def set_up(self) -> None:
        """The old output, beside files of somebody else."""
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir()
        self._contents(new=False)
        assert cli.main([*self.first, "--quiet"]) == 0
        self._contents(new=True)
        self.foreign = [name for name in FOREIGN if not (self.root / name).exists()]
        if "out" in self.foreign and self.kind.startswith("folder"):
            self.foreign.remove("out")
        for name in self.foreign:
            (self.root / name).write_text(name)

    def run(self, fault: Fault = Fault(), command: list[str] | None = None) -> Result:  # noqa: B008
        return run(command or self.command, self.log, fault)

    def files(self) -> dict[str, bytes]:
        """What has a final name, beside foreign files."""
        found = {}
        for top in self.root.iterdir():
            if top.name in getattr(self, "foreign", ()) or top.suffix == ".streamconv":
                continue
            for path in [top] if top.is_file() else sorted(top.rglob("*")):
                if path.is_file():
                    found[path.relative_to(self.root).as_posix()] = path.read_bytes()
        return found

    def violations(self, where: str, *versions: dict[str, bytes]) -> list[str]:
        """What is wrong right after a fault; ``versions`` are the outputs that may be there, the old and the new by default."""
        versions, now = versions or (self.old, self.new), self.files()
        wrong = [
            f"{where}: {name} is neither old nor new"
            for name, data in now.items() if data not in [v.get(name) for v in versions]
        ]  # fmt: skip
        wrong += [f"{where}: {n} was touched" for n in self.foreign if not self._is_as_it_was(n)]
        firsts = sorted(p for p in self.root.glob("out*.gguf") if p.is_file() and p.name not in self.foreign)
        if self.kind.startswith("folder"):
            firsts = [self.root / "out"] if (self.root / "out").exists() else []
            if not firsts:
                wrong.append(f"{where}: the folder is gone")
        for first in firsts:
            try:
                loaded = [f.path.relative_to(self.root).as_posix() for f in open_checkpoint(first).inputs]
            except StreamconvError:
                continue
            if not any(all(now[name] == v.get(name) for name in loaded) for v in versions):
                wrong.append(f"{where}: {first.name} loads as a mixture of {loaded}")
        return wrong

    def _is_as_it_was(self, name: str) -> bool:
        path = self.root / name
        return path.is_file() and path.read_text() == name

    def healed(self, where: str, by_another: bool, others_left: bool = False, copied: bool = False) -> list[str]:
        """What is wrong after the same command, or another one, was run without a fault.

        Parameters
        ----------
        others_left : there may be an unfinished job of the other one, which stays where nothing is left to do
        copied : every file has another time and inode than it had, so that nobody can tell any more whether old files are still
            what they were: those that no new one has the name of may stay, an old folder may stay in the job's, and a folder
            that is whole may be refused
        """
        command = self.another if by_another else self.command
        result = self.run(command=command)
        if copied and result.code == 73 and self.kind.startswith("folder"):
            result = self.run(command=[*command, "--force"])
        expected = self.third if by_another else self.new
        now, who = self.files(), "another" if by_another else "the same"
        if copied:
            now = {n: d for n, d in now.items() if n in expected or d not in (self.old.get(n), self.new.get(n))}
        is_refused = copied and result.code == 73 and self.files() in (self.old, self.new, expected)
        if (result.code or now != expected) and not is_refused:
            names = sorted(n for n in {*now, *expected} if now.get(n) != expected.get(n))
            return [f"{where}, then {who} command: exit {result.code}; wrong: {names}: {result.stderr[-300:]}"]
        left = [p.name for p in self.root.iterdir() if p.is_dir() and p.suffix == ".streamconv"]
        wrong = [f"{where}, then {who} command: {left} is left"] if left and not (others_left or copied) else []
        wrong += [f"{where}, then {who} command: {n} was touched" for n in self.foreign if not self._is_as_it_was(n)]
        code = 0 if is_refused else cli.main(["verify", str(self.command[2]), "--quiet"])
        return wrong if code == 0 else [*wrong, f"{where}, then {who} command: verify says {code}"]


@pytest.fixture(scope="module")
def replaced_of(folder: Path) -> Callable[[str], Replaced]:
    made: dict[str, Replaced] = {}

    def get(kind: str) -> Replaced:
        if kind not in made:
            made[kind] = Replaced(folder / f"replaced {kind}", kind)
        return made[kind]

    return get


def steps(quick: int, slow: int) -> list[object]:
    """Kinds and the steps between the calls that are visited."""
    return [
        *(pytest.param(kind, quick, id=f"{kind}-some") for kind in ("shards", "folder")),
        *(pytest.param(kind, 1 if ALL or SOAK else slow, marks=SLOW, id=f"{kind}-many") for kind in KINDS),
    ]


def late(replaced: Replaced, step: int) -> list[int]:
    """The write calls from a little before the first name is given, every ``step``-th."""
    return list(range(max(1, replaced.calls - 70), replaced.calls + 1, step))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "step"), steps(17, 7))
def test_a_kill_while_an_output_is_replaced_leaves_no_mixture_and_is_healed(
    kind: str, step: int, replaced_of: Callable[[str], Replaced], tell: Tell
) -> None:
    replaced, wrong, n = replaced_of(kind), [], 0
    for at in late(replaced, step):
        for action in ("kill before", "kill after"):
            replaced.set_up()
            where = f"{kind}, {action} call {at} of {replaced.calls}"
            result = replaced.run(Fault(at, action))
            if result.code not in (-signal.SIGKILL, 0):
                wrong.append(f"{where}: exit {result.code}: {result.stderr[-300:]}")
            wrong += replaced.violations(where)
            wrong += replaced.healed(where, by_another=n % 2 == 1)
            n += 1
    tell(f"{n} kills while an output is replaced ({kind}): {len(wrong)} wrong")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(("kind", "n"), [
    ("shards", 3), *(pytest.param(kind, SOAK // 10 or 6, marks=SLOW) for kind in KINDS),
])  # fmt: skip
def test_a_kill_during_recovery_from_a_kill_is_healed(
    kind: str, n: int, replaced_of: Callable[[str], Replaced], seed: int, tell: Tell
) -> None:
    replaced, wrong = replaced_of(kind), []
    rng = random.Random(f"{seed} {kind}")
    for trial in range(n):
        replaced.set_up()
        calls, where = rng.choice(late(replaced, 1)), f"{kind}, seed {seed}, trial {trial}"
        replaced.run(Fault(calls, rng.choice(("kill before", "kill after"))))
        others = False
        for again in range(rng.randint(1, 3)):
            action = rng.choice(("kill before", "kill after", "EIO", "ENOSPC"))
            by_another = rng.random() < 0.2
            others |= by_another
            result = replaced.run(Fault(rng.randint(1, 60), action), replaced.another if by_another else None)
            where += f", {action} of {'another' if by_another else 'the'} run {again}"
            if result.code not in (-signal.SIGKILL, 0, 73, 74) or "Traceback" in result.stderr:
                wrong.append(f"{where}: exit {result.code}: {result.stderr[-300:]}")
            wrong += replaced.violations(where, replaced.old, replaced.new, replaced.third)
        wrong += replaced.healed(where, by_another=not others and rng.random() < 0.3, others_left=others)
    tell(f"{n} kills followed by further faults while an output is replaced ({kind}): {len(wrong)} wrong, seed {seed}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(("kind", "step"), steps(46, 9))
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
def test_an_error_while_an_output_is_replaced_leaves_no_mixture_and_is_healed(
    kind: str, step: int, error: str, replaced_of: Callable[[str], Replaced], tell: Tell
) -> None:
    replaced, wrong, n = replaced_of(kind), [], 0
    for at in late(replaced, step):
        replaced.set_up()
        where = f"{kind}, {error} at call {at} of {replaced.calls}"
        result = replaced.run(Fault(at, error, sticky=n % 2 == 0))
        if result.code not in (0, 73, 74) or "Traceback" in result.stderr:
            wrong.append(f"{where}: exit {result.code}: {result.stderr[-300:]}")
        wrong += replaced.violations(where)
        wrong += replaced.healed(where, by_another=n % 4 > 1)
        n += 1
    tell(f"{n} times {error} while an output is replaced ({kind}): {len(wrong)} wrong")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(("kind", "n"), [
    ("shards", 6), *(pytest.param(kind, SOAK // 5 or 12, marks=SLOW) for kind in KINDS),
])  # fmt: skip
def test_a_power_cut_while_an_output_is_replaced_leaves_no_mixture_and_is_healed(
    kind: str, n: int, replaced_of: Callable[[str], Replaced], seed: int, tell: Tell
) -> None:
    replaced, wrong = replaced_of(kind), []
    rng = random.Random(f"{seed} {kind} power")
    replaced.set_up()
    old = Disk(replaced.root)
    with recording(replaced.root) as calls:
        assert cli.main([*replaced.command, "--quiet"]) == 0
    for trial in range(n):
        cut = rng.randint(max(0, len(calls) - 90), len(calls))
        disk = old.copy()
        for call in calls[:cut]:
            disk.take(call)
        disk.leave(replaced.root, rng)
        where = f"{kind}, seed {seed}, power cut {trial} after call {cut} of {len(calls)}"
        wrong += replaced.violations(where)
        wrong += replaced.healed(where, by_another=trial % 3 == 2, copied=True)
    tell(f"{n} power cuts while an output is replaced ({kind}): {len(wrong)} wrong, seed {seed}")
    assert not wrong, "\n".join(wrong)
