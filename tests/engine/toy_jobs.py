"""Jobs over items whose bytes follow from their names; what the tests of jobs share."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from streamconv.engine import job, run
from streamconv.engine.budget import share
from streamconv.engine.plan import OutputFile, Placement, Plan, fingerprint
from streamconv.errors import Stopped
from streamconv.progress import Silent
from streamconv.rows import Bytes, File, Floats, Json, Quality, Rows, Span
from streamconv.workers import Workers


class Source(File):
    """A file that toys say they are made from."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def view(self, offset: int, length: int) -> Bytes:
        return np.frombuffer(self.path.read_bytes()[offset : offset + length], np.uint8)


class Look(Rows):
    """What has to be known of a whole tensor; ``body`` is what measuring it does."""

    def __init__(self, body: Callable[[Workers], None] = Workers.go_on) -> None:
        self.body = body
        self.n_measured = 0
        self.value: Json = None

    def measure(self, workers: Workers) -> Json:
        self.body(workers)
        self.n_measured += 1
        return self.n_measured

    def measured(self, value: Json) -> None:
        self.value = value

    def ask(self) -> None:
        assert self.value is not None, "it was not measured"


class Toy:
    """Rows whose bytes follow from name and row number; counts what it made."""

    whole = is_quick = False
    together = 0
    number = 0
    #: byte r of it is what row r is made from; none: nothing
    source: Source | None = None

    def __init__(self, name: str, n_rows: int = 40, *row_bytes: int, looks: Sequence[Look] = ()) -> None:
        self.name, self.n_rows, self.row_bytes = name, n_rows, row_bytes or (64,)
        self.n_cols = self.row_bytes[0]
        self.looks = looks
        self.made: list[int] = []
        self.hook: Callable[[int], None] = lambda row: None

    def fill(self, start: int, stop: int, outs: Sequence[Bytes | None], scratch: Floats) -> list[Quality]:
        for r in range(start, stop):
            self.hook(r)
            self.made.append(r)
            for part, out in enumerate(outs):
                if out is not None:
                    assert out.ctypes.data % 16 == 0, "kernels are compiled for aligned arrays"
                    seed = int.from_bytes(hashlib.sha256(f"{self.name}/{r}/{part}".encode()).digest()[:4], "little")
                    out[r - start] = np.random.default_rng(seed).integers(0, 256, self.row_bytes[part], np.uint8)
        return [Quality() for _ in outs]

    def spans(self, start: int, stop: int) -> Iterator[Span]:
        if self.source is not None:
            yield Span(self.source, start, stop - start)

    @property
    def files(self) -> list[File]:
        return [] if self.source is None else [self.source]

    def everything(self) -> Iterator[Span]:
        return self.spans(0, self.n_rows)

    def prefetch(self, start: int, stop: int) -> None: ...

    def release(self, start: int, stop: int) -> None: ...


def make_plan(folder: Path, toys: list[Toy], tag: object = 0, n_files: int = 1, mtime_ns: int = 1) -> Plan:
    header = b"HEAD" + fingerprint(tag).ljust(60, b"\0")
    placements, sizes = [], [len(header)] * n_files
    number = 0
    for at, toy in enumerate(toys):
        toy.number = at
        for part, row_bytes in enumerate(toy.row_bytes):
            f = number % n_files
            number += 1
            placements.append(Placement(toy, part, f, sizes[f]))
            sizes[f] += toy.n_rows * row_bytes
    return Plan(
        output=folder / "out.bin",
        files=[OutputFile(folder / f"out{'' if n_files == 1 else i}.bin", header, s) for i, s in enumerate(sizes)],
        placements=placements,
        fingerprint=fingerprint(tag),
        inputs=[{"name": "in.bin", "size": 10, "mtime_ns": mtime_ns}],
        verify_inputs=lambda: False,
        description={"tag": tag},
        chunk_bytes=256,
    )


def toys() -> list[Toy]:
    return [Toy("a"), Toy("b", 7), Toy("c", 33, 100)]


def parted() -> list[Toy]:
    return [Toy("a", 40, 64, 33, 100), Toy("b", 7, 128), Toy("c", 33, 20, 50)]


def folder_plan(parent: Path, tag: object = 0) -> Plan:
    plan = make_plan(parent, toys(), tag, n_files=2)
    folder = parent / "out"
    listed = [replace(f, path=folder / f.path.name) for f in plan.files]
    listed += [OutputFile(folder / "config.json", b"{}", 2), OutputFile(folder / "more" / "x.txt", b"", 0)]
    return replace(plan, output=folder, files=listed, folder=folder)


def go(plan: Plan, *, threads: int = 2, verify: str = "all", force: bool = False, update: bool = False) -> run.Outcome:
    opened = job.Job.open(plan, verify=verify, force=force, update=update)
    try:
        return run.run(opened, share(1 << 24, threads, 64, 128), Silent(), run.StopRequest())
    finally:
        opened.close()


def interrupted(plan: Plan, after: int, error: Exception | None = None) -> None:
    """Run ``plan`` until ``after`` rows were begun, then stop it by ``error``."""
    count = 0

    def hook(_row: int) -> None:
        nonlocal count
        count += 1
        if count > after:
            raise error or Stopped("enough")

    for p in plan.placements:
        assert isinstance(p.item, Toy)
        p.item.hook = hook
    with pytest.raises(type(error or Stopped(""))):
        go(plan, threads=1)
    for p in plan.placements:
        assert isinstance(p.item, Toy)
        p.item.hook = lambda row: None
        p.item.made.clear()


def listing(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
