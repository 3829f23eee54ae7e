"""What a comparison keeps in a job folder while it runs, so that the same command goes on after whatever ended it.

    data-1.part         a range for each layer of each model: the digest of the states after it; and one for each 512 positions:
                        what the heads say there
    data-2.part, …      the hidden states of each model, in two files by turns (``states``)

Each range is a chunk of the job. Nothing of it becomes an output: the folder goes when the result has been told.
"""

from __future__ import annotations

import os
import stat
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from .. import forward
from ..conversion.layout import identities
from ..engine import files
from ..engine import plan as plans
from ..engine.changes import SourceDigests
from ..engine.index_file import CommitRecord
from ..engine.job import Job
from ..forward.chunks import Chunks
from ..forward.divergence import Doubles
from ..forward.matmul import PIECE
from ..rows import Rows
from ..sources.checkpoint import Checkpoint, InputFile
from .groups import Group, beside, rows_of
from .heads import Table
from .planning import any_changed, digest_of, facts_of
from .states import States, states_bytes

#: raised where the same text and models give other numbers than before
_SCHEME = 1
#: of a part whose header is never written, for it is never published
_HEADER = bytes(16)
_DIGEST_BYTES = 16


@dataclass(frozen=True)
class Comparison:
    """Models that are run over one text, the first as the reference of the others."""

    models: Sequence[forward.Model]
    chunks: Chunks

    @property
    def shapes(self) -> list[tuple[int, int, int]]:
        """Of the hidden states of each model."""
        return [(*self.chunks.inputs.shape, model.width) for model in self.models]

    def table(self) -> Table:
        """An empty one of what their heads say."""
        return Table(self.chunks.targets.size, len(self.models))


def make_plan(
    work: Path,
    comparison: Comparison,
    checkpoints: Sequence[Checkpoint],
    text_files: Sequence[InputFile],
    description: Mapping[str, Any],
) -> plans.Plan:
    """The plan of a job whose folder is that of ``work``, see ``engine.plan.job_folder``; there will be no such output."""
    inputs = [*(file for checkpoint in checkpoints for file in checkpoint.inputs), *text_files]
    numbers = {file.path: n for n, file in enumerate(inputs)}
    groups = list(_groups(comparison))
    end = groups[-1].offset + groups[-1].n_bytes
    fingerprint = plans.fingerprint(
        {
            "kind": "comparison",
            "scheme": _SCHEME,
            "models": [facts_of(model) for model in comparison.models],
            "tokens": [digest_of(tokens) for tokens in comparison.chunks],
            "shapes": [list(shape) for shape in comparison.shapes],
            "groups": [[g.name, g.offset, g.identity(), [numbers.get(f.path, -1) for f in g.files]] for g in groups],
            "inputs": [list(file.content)[1:] for file in inputs],
        }
    )
    verify = [checkpoint.verify_unchanged for checkpoint in checkpoints]
    return plans.Plan(
        output=work,
        files=[plans.OutputFile(work, _HEADER, end, names_job=False)],
        placements=[plans.Placement(group, 0, 0, group.offset) for group in groups],
        fingerprint=fingerprint,
        inputs=identities(inputs),
        verify_inputs=lambda: any_changed(text_files, lambda: any([each() for each in verify])),
        description=dict(description),
        scratch_bytes=sum(map(states_bytes, comparison.shapes)),
    )


def _groups(comparison: Comparison) -> Iterator[Group]:
    """The ranges of the file, in its order."""
    tokens = comparison.chunks.inputs
    ranges: list[tuple[str, int | None, int, list[Rows], list[Rows]]] = [
        (_layer_name(n, layer), layer, _DIGEST_BYTES, rows_of(model, layer, tokens), beside(model, layer, tokens))
        for n, model in enumerate(comparison.models)
        for layer in range(model.n_layers)
    ]
    values = comparison.table().values
    heads = [rows for model in comparison.models for rows in rows_of(model, None, tokens)]
    for piece in range(-(-len(values) // PIECE)):
        ranges.append((_piece_name(piece), None, values[_rows_of_piece(piece)].nbytes, heads, []))
    at = len(_HEADER)
    for number, (name, block, n_bytes, rows, others) in enumerate(ranges):
        yield Group(number, name, block, (), at, n_bytes, rows, others)
        at += n_bytes


def _layer_name(model: int, layer: int) -> str:
    return f"blk.{layer} of model {model + 1}"


def _piece_name(piece: int) -> str:
    return f"heads at position {piece * PIECE}"


def _rows_of_piece(piece: int) -> slice:
    return slice(piece * PIECE, (piece + 1) * PIECE)


def make_printed_durable() -> None:
    """Return when what was printed is on the disk, where it goes into a file.

    Raises
    ------
    WriteFailed : it is not
    """
    sys.stdout.flush()
    fd = -1
    with suppress(OSError, ValueError):  # replaced by something without a descriptor
        fd = sys.stdout.fileno()
    if fd >= 0 and stat.S_ISREG(os.fstat(fd).st_mode):
        files.sync_data(fd, Path("stdout"))


class Kept:
    """A comparison in its job folder."""

    def __init__(self, job: Job, comparison: Comparison) -> None:
        self.job, self._comparison = job, comparison
        self._chunks = {chunk.item.name: chunk for chunk in job.plan.chunks()}
        self._lock = threading.Lock()
        self._digests: dict[str, bytes] = {}

    @contextmanager
    def states(self) -> Iterator[list[States]]:
        """The states of every model as they were left."""
        found: list[States] = []
        try:
            for n, shape in enumerate(self._comparison.shapes):
                paths = [self.job.plan.job_dir / f"data-{2 * n + k}.part" for k in (2, 3)]
                found.append(States(paths, shape, self.job.plan.fingerprint))
                found[n].restore(self._n_done(n))
            if any(s.n_layers < m.n_layers for s, m in zip(found, self._comparison.models, strict=True)):
                self._forget_heads()  # now: once the last layer is made again, nothing tells that they have said it of others
            yield found
        finally:
            for states in found:
                states.close()

    def _n_done(self, model: int) -> int:
        """Layers of a model up to the first that is missing."""
        done, n_layers = 0, self._comparison.models[model].n_layers
        while done < n_layers and self._chunks[_layer_name(model, done)].number in self.job.done:
            done += 1
        return done

    def _forget_heads(self) -> None:
        done = self.job.done
        old = [c.number for c in self._chunks.values() if isinstance(c.item, Group) and c.item.block is None]
        old = [number for number in old if done.pop(number, None) is not None]
        if old:
            self.job.journal.forget(old)

    def begin_layer(self, model: int, layer: int) -> None:
        """Look at what a layer is made of, before it is run."""
        name = _layer_name(model, layer)
        self._digests[name] = self._source(name)

    def end_layer(self, model: int, layer: int, states: States) -> None:
        """The states after a layer are durable: it is done."""
        name = _layer_name(model, layer)
        self._commit({name: states.digest}, self._digests.pop(name))

    def table(self) -> Table:
        """What heads have said, and where the rest goes."""
        found = _KeptTable(self, self._comparison)
        for n in found.missing:
            chunk = self._chunks[_piece_name(n)]
            if chunk.number in self.job.done:
                data = files.pread_exactly(self.job.part_fds[0], chunk.length, chunk.offset, self.job.plan.part_path(0))
                rows = found.values[_rows_of_piece(n)]
                rows[...] = np.frombuffer(data, "<f8").reshape(rows.shape)
        found.missing = [n for n in found.missing if self._chunks[_piece_name(n)].number not in self.job.done]
        return found

    def end_pieces(self, part: slice, values: Doubles) -> None:
        """Heads have said ``values`` at the positions ``part``, which begin with a piece."""
        first = part.start // PIECE
        said = {
            _piece_name(first + n): np.ascontiguousarray(values[_rows_of_piece(n)], "<f8").tobytes()
            for n in range(-(-len(values) // PIECE))
        }
        with self._lock:
            source = self._digests.get("heads") or self._source(_piece_name(first))
            self._digests["heads"] = source
            self._commit(said, source)

    def _source(self, name: str) -> bytes:
        return SourceDigests().of(self._chunks[name].item, 0, 1)

    def _commit(self, found: Mapping[str, bytes], source: bytes) -> None:
        """Write ranges and record them."""
        job, records = self.job, []
        for name, data in found.items():
            chunk = self._chunks[name]
            files.pwrite_all(job.part_fds[0], data, chunk.offset, job.plan.part_path(0))
            digest = xxhash.xxh3_128(data).digest()
            records.append(CommitRecord(chunk.number, 0, chunk.offset, chunk.length, 1, digest, source=source))
        job.commit(records)


class _KeptTable(Table):
    """One whose rows are committed as they come, so that a kill costs those being made: few, so pieces are made one by one."""

    most_pieces = 1

    def __init__(self, kept: Kept, comparison: Comparison) -> None:
        super().__init__(comparison.chunks.targets.size, len(comparison.models))
        self._kept = kept

    def add(self, part: slice, values: Doubles) -> None:
        """See ``Table``."""
        super().add(part, values)
        self._kept.end_pieces(part, values)
