"""Jobs whose output holds the stored tensors of GGUF files as they are, under other headers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

from ..conversion.layout import Content, make_plan
from ..conversion.options import Options
from ..conversion.outputs import refuse_inputs, refuse_long_names
from ..conversion.prepared import OutputTensor, Prepared
from ..conversion.provenance import job_of_gguf
from ..conversion.target import Draft, Target
from ..errors import UsageError
from ..metadata import Metadata
from ..quant.encode import EncodedRows, Encoding
from ..quant.filetypes import BY_NUMBER
from ..quant.types import TensorType
from ..rows import Bytes, Floats, Quality, Rows
from ..sources import Checkpoint, GgufFile, read_gguf, read_splits
from ..sources.frame_cache import FrameCache
from ..sources.zstd import open_file
from ..targets.layout import FileLayout, TensorInfo

#: what the output is told to be beside its tensors
_REASON = "copied"
#: of options.ram, for what compressed inputs decompress to
_CACHE_SHARE = 2


class CopiedRows(EncodedRows):
    """A tensor that is written as it is stored, whatever its values are."""

    def __init__(self, name: str, rows: Rows, type_: TensorType, number: int) -> None:
        super().__init__(name, rows, [Encoding(rows, type_, allow_nonfinite=True)], True, number)
        self._kind = type_.name

    def fill(self, start: int, stop: int, outs: Sequence[Bytes | None], scratch: Floats) -> list[Quality]:
        """See ``engine.plan.Item``; nothing is looked at."""
        (out,) = outs
        stored = self.rows.native(self._kind, start, stop)
        assert out is not None
        assert stored is not None
        out[...] = stored
        return [Quality(sum_squared_error=math.nan)]


@dataclass(frozen=True)
class Stored:
    """The ``files`` of a model, the first one, ``path``, first."""

    path: Path
    files: Sequence[GgufFile]

    @classmethod
    def open(cls, path: Path, options: Options) -> Stored:
        """The model whose only or first file is ``path``; of ``options``, ``io`` and ``ram`` count.

        Raises
        ------
        InputMissing, NoPermission, BadInput : see ``sources.read_splits``
        """
        cache = FrameCache(options.ram // _CACHE_SHARE)
        return cls(path, read_splits(path, options.io, partial(open_file, cache=cache)))

    @property
    def metadata(self) -> Metadata:
        """Key/values of the first file, as stored."""
        return self.files[0].metadata

    @property
    def alignment(self) -> int:
        """Of the tensors of the first file."""
        return self.files[0].header.alignment

    @property
    def infos(self) -> list[TensorInfo]:
        """All tensors, file after file."""
        return [TensorInfo(t.name, t.shape, t.type) for file in self.files for t in file.tensors.values()]

    @property
    def shards(self) -> list[range]:
        """The numbers of the tensors of every file."""
        ends = [0]
        for file in self.files:
            ends.append(ends[-1] + len(file.tensors))
        return [range(a, b) for a, b in pairwise(ends)]

    def checkpoint(self) -> Checkpoint:
        """As what every conversion starts from."""
        rows = {name: file.rows(info) for file in self.files for name, info in file.tensors.items()}
        inputs = tuple(f.file.describe(min(f.header.data_start, f.file.size)) for f in self.files)
        return Checkpoint(path=self.path, tensors=rows, config={}, inputs=inputs, metadata=self.metadata)


def plan_copies(
    stored: Stored,
    output: Path,
    files: Sequence[FileLayout],
    options: Options,
    warnings: Sequence[str] = (),
    *,
    over_input: bool = False,
) -> Prepared:
    """Plan to write ``files``, which hold the tensors of ``stored`` by their numbers.

    Parameters
    ----------
    output : the name by which the user knows them
    over_input : they take the name of the input

    Raises
    ------
    UsageError, CannotCreate : the output cannot have this name
    """
    checkpoint = stored.checkpoint()
    infos = stored.infos
    items = [
        CopiedRows(info.name, rows, info.type, number)
        for number, (info, rows) in enumerate(zip(infos, checkpoint.tensors.values(), strict=True))
    ]
    known = BY_NUMBER.get(stored.metadata.get("general.file_type"))
    draft = Draft(
        known.name if known else "mixed types", str(stored.metadata.get("general.architecture", "?")), (), None
    )
    target = Target("gguf", "a GGUF file", _no_choice, _given(files), job_of_gguf, names_job=False)
    tensors = [OutputTensor(item.name, item, 0, _REASON) for item in items]
    plan, outputs = make_plan(checkpoint, output, target, [Content(output, draft, tensors)], options)
    prepared = Prepared(checkpoint.path, plan, draft.arch, outputs, warnings=[*warnings])
    refuse_long_names(prepared)
    if not over_input:
        refuse_inputs(checkpoint, prepared, [stored.path], options)
    return prepared


def require_gguf_name(output: Path) -> None:
    """UsageError unless ``output`` is named as a GGUF file."""
    if output.suffix != ".gguf":
        raise UsageError(f"{output}: the output is a GGUF file", f"Name it {output.name}.gguf.")


def accept(path: Path) -> None:
    """Read the finished file as loaders do, before it gets its name (BadInput)."""
    read_gguf(path)


def _no_choice(checkpoint: Checkpoint, options: Options) -> Sequence[Draft]:
    raise AssertionError("what is copied is not chosen")


def _given(files: Sequence[FileLayout]) -> Callable[[Path, Draft, Options, str], Sequence[FileLayout]]:
    """A layout that is there already."""
    return lambda path, draft, options, job: files
