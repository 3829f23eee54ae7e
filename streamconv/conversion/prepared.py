"""A planned conversion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..engine.plan import Plan
from ..quant.encode import EncodedRows, Encoding
from .hub_models import HubModels
from .recipe import Recipe


@dataclass(frozen=True)
class OutputTensor:
    """A tensor of one output.

    Attributes
    ----------
    item, part : the rows and which of their encodings
    reason : why it has that type
    is_listed : see ``Chosen``
    """

    name: str
    item: EncodedRows
    part: int
    reason: str
    is_listed: bool = True

    @property
    def encoding(self) -> Encoding:
        """The encoding of this output."""
        return self.item.parts[self.part]


@dataclass(frozen=True)
class Output:
    """One output: a file, its shards, or a folder.

    Attributes
    ----------
    path : the name asked for
    type : file type
    arch : architecture, as the target spells it
    tensors : in file order
    files : numbers of its files in the plan
    """

    path: Path
    type: str
    arch: str
    tensors: Sequence[OutputTensor]
    files: range

    @property
    def n_params(self) -> int:
        """Weights of the output."""
        return sum(t.item.n_rows * t.item.n_cols for t in self.tensors)

    @property
    def data_bytes(self) -> int:
        """Bytes of all encoded tensors."""
        return sum(t.encoding.n_bytes for t in self.tensors)

    @property
    def bits_per_weight(self) -> float:
        """Average over all tensors; 0 without any."""
        return 8 * self.data_bytes / self.n_params if self.n_params else 0.0


@dataclass(frozen=True)
class Prepared:
    """A planned conversion.

    Attributes
    ----------
    source : what is converted
    plan : what the engine runs
    arch : architecture, as the target spells it
    left_out : tensors of the source that the output does not have, and why
    hub : the models of the hub among its inputs, if there are any
    recipe : what it was made from
    """

    source: Path
    plan: Plan
    arch: str
    outputs: Sequence[Output]
    left_out: Mapping[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    hub: HubModels | None = None
    recipe: Recipe | None = None

    @property
    def items(self) -> list[EncodedRows]:
        """What is read, each once."""
        return list({t.item.number: t.item for o in self.outputs for t in o.tensors}.values())

    def close(self) -> None:
        """Let other jobs, of this process too, download the same models; nothing more is read of what is not here yet."""
        if self.hub is not None:
            self.hub.close()
