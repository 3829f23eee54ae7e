"""Packing as a job of the engine.

The plan knows which frames there will be, not how long they get. So the files grow: a chunk is four frames, or as many as are
left, and the slot of the index says where it lies. Chunks of a file are made and committed in their order, and their bytes are a
function of the content alone; a run that goes on keeps, of each file, the chunks up to the first that is missing. The last
chunk of a file also has what follows its frames. When all are committed the sizes are known, and the folder gets its name.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..conversion.layout import identities
from ..conversion.opening import listed
from ..conversion.options import Options
from ..conversion.overlap import refuse_overlap
from ..engine import plan as plans
from ..engine.record import record_path
from ..errors import BadInput
from ..file_names import HUGGING_FACE, MISTRAL, PACK, PACKED_FORMATS, plain_name
from ..rows import Bytes, File, Floats, Json, Quality, Rows, Span
from ..sources import FrameCache, MappedFile, adapter_weights, is_adapter, open_checkpoint
from ..sources.checkpoint import Checkpoint, InputFile
from ..sources.local_files import open_file
from ..sources.pack import PackFile
from ..sources.pack_format import FRAME_BYTES, head
from .beside import as_folder, as_they_are, further_weights, small_files
from .frames import Frame, Survey, survey, version
from .spanned import Spanned

#: frames of a chunk
_CHUNK_FRAMES = 4
#: stands in the head for the fingerprint while it is not known
_UNKNOWN_JOB = "0" * 64


@dataclass(frozen=True, eq=False)
class PackedFile(Spanned):
    """One file and its frames, an item of the engine: a row is a frame, and behind them is one for what follows the frames.

    Attributes
    ----------
    number : that of its output file
    name : of the plain file, relative to the folder
    found : how it is cut
    """

    number: int
    name: str
    file: MappedFile
    found: Survey
    n_cols = FRAME_BYTES
    row_bytes = (FRAME_BYTES,)
    looks: Sequence[Rows] = ()
    whole = False
    together = 0
    is_quick = False

    @property
    def frames(self) -> Sequence[Frame]:
        """Its frames in order."""
        return self.found.frames

    @property
    def n_rows(self) -> int:
        """Frames, and one for what follows them."""
        return len(self.frames) + 1

    @property
    def files(self) -> Sequence[File]:
        """See ``Item``."""
        return (self.file,)

    @cached_property
    def sample(self) -> str:
        """The digest by which plans know the plain file."""
        return self.file.sample(self.found.data_start)

    def fill(self, start: int, stop: int, outs: Sequence[Bytes | None], scratch: Floats) -> Sequence[Quality]:
        """Frames have no length of their own to fill; see ``making``."""
        raise NotImplementedError

    def spans(self, start: int, stop: int) -> Iterator[Span]:
        """See ``Item``."""
        frames = self.frames[start:stop]
        if frames:
            yield Span(self.file, frames[0].start, frames[-1].stop - frames[0].start)

    def everything(self) -> Iterator[Span]:
        """See ``Item``."""
        return self.spans(0, self.n_rows)

    def identity(self) -> Json:
        """See ``Item``."""
        return [self.name, self.file.size, [list(frame) for frame in self.frames]]


@dataclass(frozen=True)
class Packing:
    """A planned job.

    Attributes
    ----------
    items : the files that are packed, in the order of the first files of ``plan``
    """

    plan: plans.Plan
    items: Sequence[PackedFile]
    warnings: Sequence[str] = ()


def prepare_pack(source: str | os.PathLike[str], output: str | os.PathLike[str], options: Options) -> Packing:
    """Plan to pack the model ``source`` into the folder ``output``; reads headers and side files, writes nothing.

    Raises
    ------
    UsageError : ``output`` is or contains what is read
    BadInput, InputMissing, NoPermission : the model cannot be read, or not be packed
    """
    output, cache = as_folder(output), FrameCache(options.ram // 2)
    opened = _opened(Path(source), options, cache)
    folder = opened.folder if opened.path.is_dir() or opened.path.name.endswith(".index.json") else None
    inputs = list(opened.inputs)
    if folder is not None:
        for name in further_weights(folder):
            place = open_file(folder / name, options.io, cache)
            inputs.append(place.describe(0))
    names = [_name(file, folder) for file in inputs]
    side = small_files(folder, names) if folder is not None else {}
    items = [
        PackedFile(n, name, file, survey(file))
        for n, (name, file) in enumerate(
            zip(names, (open_file(i.path, options.io, cache) for i in inputs), strict=True)
        )
    ]

    def verify() -> bool:
        return any([file.verify_unchanged() for file in inputs])

    plan = make_plan(output, items, inputs, verify, {"source": str(source)}, side)
    refuse_overlap(
        [*(f.path for f in plan.files), record_path(output)], [plan.job_dir, output], [Path(source)],
        [file.path for file in inputs], copied=True,
    )  # fmt: skip
    return Packing(plan, items, opened.warnings)


def _opened(source: Path, options: Options, cache: FrameCache) -> Checkpoint:
    """The model, opened as for a conversion, and so known to be whole; or the adapter."""
    names = listed(source)
    if is_adapter(names):
        parts = [open_checkpoint(source / name, options.io, cache=cache) for name in adapter_weights(names)]
        opened = Checkpoint(source, {}, {}, tuple(file for part in parts for file in part.inputs))
    else:
        is_mistral = (source / MISTRAL.config).is_file() and not (source / HUGGING_FACE.config).exists()
        opened = open_checkpoint(source, options.io, cache=cache, layout=MISTRAL if is_mistral else HUGGING_FACE)
    for file in opened.inputs:
        if file.path.suffix == PACK:
            raise BadInput(
                f"{file.path} is packed already", "Every command reads it as it is; streamconv unpack undoes it."
            )
        if Path(plain_name(file.path.name)).suffix not in PACKED_FORMATS:
            raise BadInput(
                f"{file.path} cannot be packed: only files of safetensors, GGUF and torch can",
                f"Their names end in {', '.join(PACKED_FORMATS)}.",
            )
    return opened


def _name(file: InputFile, folder: Path | None) -> str:
    """The name of the plain file in the model's folder."""
    inside = folder is not None and file.path.is_relative_to(folder)
    name = file.path.relative_to(folder).as_posix() if inside and folder is not None else file.path.name
    return f"{name.removesuffix(file.path.name)}{plain_name(file.path.name)}"


def make_plan(
    output: Path,
    items: Sequence[PackedFile],
    inputs: Sequence[InputFile],
    verify_inputs: Callable[[], bool],
    description: dict[str, object],
    side: Mapping[str, bytes] | None = None,
    mode: int = 0o666,
) -> plans.Plan:
    """The plan of packing ``items`` into the folder ``output``, or where ``side`` is None, the only one into the file."""
    facts = {
        "kind": "pack",
        "packer": version(),
        "files": [item.identity() for item in items],
        "inputs": [list(file.content) for file in inputs],
        "side": [[name, hashlib.sha256(data).hexdigest()] for name, data in (side or {}).items()],
    }
    fingerprint = plans.fingerprint(facts)
    files = [
        plans.OutputFile(
            output if side is None else output / f"{item.name}{PACK}",
            head(Path(item.name).name, item.file.size, fingerprint.hex()), item.found.estimate, accept=_accept, mode=mode,
            grows=True,
        )
        for item in items
    ]  # fmt: skip
    return plans.Plan(
        output=output,
        files=[*files, *as_they_are(side or {}, output)],
        placements=[plans.Placement(item, 0, item.number, len(files[item.number].header)) for item in items],
        fingerprint=fingerprint,
        inputs=identities(inputs),
        verify_inputs=verify_inputs,
        description={
            **description, "type": "packed", "input size": sum(item.file.size for item in items),
            "output size": sum(f.size for f in files),
        },
        chunk_bytes=_CHUNK_FRAMES * FRAME_BYTES,
        folder=None if side is None else output,
    )  # fmt: skip


def _accept(path: Path) -> None:
    """Read what a finished file says of itself."""
    PackFile(path, "pread", FrameCache())
