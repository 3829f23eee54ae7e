"""What a target is: one frozen description of a kind of output, told in one file each of ``targets/``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..file_names import MODEL
from ..flags import Flag
from ..quant.base import Codec
from ..quant.types import TensorType
from ..rows import Floats, Rows
from ..sources.checkpoint import Checkpoint
from ..targets.layout import FileLayout
from .options import Options

#: what targets are called that are no files
FOLDER = "folder"


@dataclass(frozen=True)
class Chosen:
    """A tensor of an output, before it has a place.

    Attributes
    ----------
    rows : the same object in every output that has the tensor
    reason : why it has that type
    weights : float32[n_slices, n_cols] importance, or None
    codec : gives the codec of this tensor alone, see ``Encoding``; None: that of the type
    is_listed : whether it is a tensor to users, and not something else that is known when the tensors are
    """

    name: str
    rows: Rows
    type: TensorType
    reason: str
    weights: Floats | None = None
    codec: Callable[[], Codec] | None = None
    is_listed: bool = True


@dataclass(frozen=True)
class Draft:
    """What one output will hold.

    Attributes
    ----------
    type : file type
    arch : architecture, as the target spells it
    part : which part of a model it is, where its name has ``{part}``
    tensors : in file order
    head : whatever else its target needs to lay it out
    left_out : tensors of the source that it does not have, and why
    warnings : what a user should know
    """

    type: str
    arch: str
    tensors: Sequence[Chosen]
    head: Any
    left_out: Mapping[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    part: str = MODEL


@dataclass(frozen=True)
class Target:
    """One kind of output.

    Attributes
    ----------
    name : the ending of OUT that it fits, or ``folder``; what tells several that fit the same follows after a dot, as in
        ``folder.mlx``: of those the one that has the file types asked for is taken
    title : for messages, with its article
    choose : what the outputs hold, one for every file type asked for; UsageError or BadInput where it cannot hold them
    lay_out : (path, draft, options, what identifies the job) -> the files of an output
    job_of : what identifies the job in a file that it laid out, "" in any other
    options : fields of ``Options`` that only some targets take, and this one does
    flags : options that no other target has; ``Options.value`` tells their values
    types : the file types that there are, in capitals, or ``auto``; none: ``choose`` knows them
    as_saved : wants decoded tensors the way round in which a plain checkpoint has them
    names_job : whether headers tell the job, see ``engine.plan.OutputFile``
    """

    name: str
    title: str
    choose: Callable[[Checkpoint, Options], Sequence[Draft]]
    lay_out: Callable[[Path, Draft, Options, str], Sequence[FileLayout]]
    job_of: Callable[[Path], str]
    options: Collection[str] = ()
    flags: tuple[Flag, ...] = ()
    types: tuple[str, ...] = ()
    as_saved: bool = False
    names_job: bool = True

    @property
    def shape(self) -> str:
        """The ending, or ``folder``."""
        return self.name.partition(".")[0]

    @property
    def is_folder(self) -> bool:
        """Whether the output is a folder."""
        return self.shape == FOLDER

    def takes(self, types: Sequence[str]) -> bool:
        """Whether it has all of these file types, as far as it says."""
        return not self.types or all(name in self.types for name in types)

    def fitting(self, output: Path) -> str:
        """``output`` with a name that it fits, and what to do with that."""
        stem = output if output.suffix[1:2].isdigit() else output.with_suffix("")
        return f"a folder such as {stem}" if self.is_folder else f"{stem}.{self.shape}"
