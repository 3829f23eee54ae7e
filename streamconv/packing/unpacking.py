"""Unpacking: an ordinary plan of the engine, whose files are the plain ones; each gets its name once its digest is right."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..conversion.execution import carry_out, open_job
from ..conversion.layout import identities
from ..conversion.options import Options
from ..conversion.overlap import refuse_overlap
from ..engine import budget as budgets
from ..engine import plan as plans
from ..engine import run as runs
from ..engine.record import record_path
from ..errors import BadInput, InputMissing, absent
from ..file_names import PACK, plain_name
from ..rows import Bytes, File, Floats, Json, Quality, Rows, Span
from ..sources import FrameCache
from ..sources.pack import PackFile
from ..sources.small_files import open_regular
from ..sources.zstd import cache_bytes
from .beside import as_folder, as_they_are, small_files
from .spanned import Spanned

#: of the content, which the file gets last
_HEADER_BYTES = 4096
_ROW_BYTES = 64 << 10
_READ_BYTES = 4 << 20


@dataclass(frozen=True, eq=False)
class _Content(Spanned):
    """Bytes of the content from ``offset`` on as ``n_rows`` rows of ``n_cols``; an item of the engine."""

    number: int
    name: str
    file: PackFile
    offset: int
    n_rows: int
    n_cols: int
    looks: Sequence[Rows] = ()
    whole = False
    together = 0
    is_quick = True

    @property
    def row_bytes(self) -> Sequence[int]:
        """See ``Item``."""
        return (self.n_cols,)

    @property
    def files(self) -> Sequence[File]:
        """See ``Item``."""
        return (self.file,)

    def fill(self, start: int, stop: int, outs: Sequence[Bytes | None], scratch: Floats) -> Sequence[Quality]:
        """See ``Item``."""
        out = outs[0]
        if out is not None:
            self.file.read_into(self.offset + start * self.n_cols, np.ravel(out))
        return (Quality(),)

    def spans(self, start: int, stop: int) -> Iterator[Span]:
        """See ``Item``."""
        if stop > start:
            yield Span(self.file, self.offset + start * self.n_cols, (stop - start) * self.n_cols)

    def everything(self) -> Iterator[Span]:
        """See ``Item``."""
        return self.spans(0, self.n_rows)

    def identity(self) -> Json:
        """See ``Item``."""
        return [self.name, self.offset, self.n_rows, self.n_cols]


@dataclass(frozen=True)
class Unpacking:
    """A planned job."""

    plan: plans.Plan
    files: Sequence[PackFile]
    warnings: Sequence[str] = ()


def prepare_unpack(source: str | os.PathLike[str], output: str | os.PathLike[str], options: Options) -> Unpacking:
    """Plan to unpack the folder, or the one file, ``source`` into the folder ``output``; writes nothing.

    Raises
    ------
    UsageError : ``output`` is or contains what is read
    BadInput, InputMissing, NoPermission : it cannot be read, or nothing of it is packed
    """
    source, output, cache = Path(source), as_folder(output), FrameCache(options.ram // 2)
    if not source.exists():
        raise absent(source, f"Give a folder of {PACK} files, or one of them.")
    folder = source if source.is_dir() else source.parent
    names = [source.name] if folder != source else _packs(folder)
    if not names or not all(name.endswith(PACK) and plain_name(name) != name for name in names):
        raise InputMissing(
            f"{source}: there is nothing that is packed, no {PACK} file", "Give what streamconv pack made."
        )
    files = [PackFile(folder / name, options.io, cache) for name in names]
    side = small_files(folder, names) if folder == source else {}
    plan = _plan(output, source, {n.removesuffix(PACK): f for n, f in zip(names, files, strict=True)}, side)
    refuse_overlap(
        [*(f.path for f in plan.files), record_path(output)], [plan.job_dir, output], [source],
        [file.path for file in files], copied=True,
    )  # fmt: skip
    return Unpacking(plan, files)


def _packs(folder: Path) -> list[str]:
    """The packed files in ``folder`` and in folders of it, by name."""
    found = (p.relative_to(folder) for p in folder.rglob(f"*{PACK}"))
    return sorted(p.as_posix() for p in found if not any(part.startswith(".") for part in p.parts))


def _plan(output: Path, source: Path, files: dict[str, PackFile], side: Mapping[str, bytes]) -> plans.Plan:
    outputs: list[plans.OutputFile] = []
    placements: list[plans.Placement] = []
    for n, (name, file) in enumerate(files.items()):
        header = bytes(file.view(0, min(_HEADER_BYTES, file.size)))
        accept = partial(_accept, file)
        outputs.append(plans.OutputFile(output / name, header, file.size, accept, names_job=False))
        n_rows, rest = divmod(file.size - len(header), _ROW_BYTES)
        for offset, rows, columns in (
            (len(header), n_rows, _ROW_BYTES), (len(header) + n_rows * _ROW_BYTES, 1, rest),
        ):  # fmt: skip
            if rows and columns:
                item = _Content(len(placements), name, file, offset, rows, columns)
                placements.append(plans.Placement(item, 0, n, offset))
    inputs = [file.describe(file.facts.data_start) for file in files.values()]
    facts = {
        "kind": "unpack",
        "files": [[name, file.size, file.facts.sha256] for name, file in files.items()],
        "side": [[name, hashlib.sha256(data).hexdigest()] for name, data in side.items()],
    }
    return plans.Plan(
        output=output,
        files=[*outputs, *as_they_are(side, output)],
        placements=placements,
        fingerprint=plans.fingerprint(facts),
        inputs=identities(inputs),
        verify_inputs=lambda: any([each.verify_unchanged() for each in inputs]),
        description={
            "source": str(source), "type": "unpacked", "input size": sum(i.size for i in inputs),
            "output size": sum(f.size for f in outputs),
        },
        folder=output,
    )  # fmt: skip


def _accept(file: PackFile, path: Path) -> None:
    """Compare what was written with the digest of the file that was packed."""
    digest = hashlib.sha256()
    with open(open_regular(path), "rb", buffering=0) as got:
        while data := got.read(_READ_BYTES):
            digest.update(data)
    if digest.hexdigest() != file.facts.sha256:
        raise BadInput(
            f"{file.path} does not unpack to the file that was packed: its sha256 is {digest.hexdigest()},"
            f" {file.facts.sha256} is on record",
            "Pack the model again, or fetch this file again.",
        )


def execute_unpack(unpacking: Unpacking, options: Options, reporter: runs.Reporter) -> runs.Outcome | None:
    """Carry out the plan; None when its output is there already.

    Raises
    ------
    Every error of the tree; what is finished is kept for the next run.
    """
    plan = unpacking.plan
    budget = budgets.share(
        options.ram, budgets.default_threads() if options.threads is None else options.threads, _ROW_BYTES, _ROW_BYTES,
        held_bytes=cache_bytes(unpacking.files),
    )  # fmt: skip
    stop = runs.StopRequest(options.stop_after_s)
    return carry_out(
        plan, options, reporter, lambda: open_job(plan, options, reporter),
        lambda job: runs.run(job, budget, reporter, stop),
    )  # fmt: skip
