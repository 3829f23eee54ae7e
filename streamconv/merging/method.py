"""What a merge method is.

A method is a row of facts (its parameters and which inputs it takes) and a function that, for one tensor whose parameters
are known, returns an *operator*: the arithmetic, a tile of rows at a time.

Arithmetic is float32 unless a method says otherwise; results are rounded once, by the caller of ``merge``. Sums that need
the whole tensor are float64 over fixed blocks, added up in order, so they do not depend on chunks or threads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from ..rows import Floats
from .inputs import Numbers
from .settings import Kind
from .stream import Stream

#: what was measured, JSON-able
Statistic = Any
Scope = Literal["shared", "input", "other"]


@dataclass(frozen=True)
class Parameter:
    """One parameter of a method.

    Attributes
    ----------
    default : taken where a recipe sets nothing
    required : there is no default
    scope : ``shared`` by all inputs, one for each ``input``, or one for each ``other`` than the base
    """

    name: str
    kind: Kind = "float"
    default: float | int | bool | None = None
    required: bool = False
    scope: Scope = "shared"


@dataclass(frozen=True)
class Task:
    """One tensor to be merged.

    Attributes
    ----------
    name : of the output tensor
    n_rows, n_cols : its shape as a matrix
    n_dims : dimensions of the tensor
    models : what the inputs are called, for messages; the base comes first if the method takes one
    has_base : the first input is the base
    shared : parameter -> value
    each : the same for every input, without the base
    seed : of the random methods; ``stream`` tells the documents of a recipe apart
    """

    name: str
    n_rows: int
    n_cols: int
    n_dims: int
    models: Sequence[str] = field(compare=False)
    has_base: bool
    shared: Mapping[str, Any] = field(default_factory=dict)
    each: Sequence[Mapping[str, Any]] = ()
    seed: int = 0
    stream: str = ""

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.n_rows * self.n_cols

    @property
    def first(self) -> int:
        """Index of the first input that is not the base."""
        return int(self.has_base)

    def column(self, name: str) -> list[Any]:
        """The values of a parameter of the inputs, in their order."""
        return [values[name] for values in self.each]


class Operator(Protocol):
    """The arithmetic of one tensor.

    One that has an attribute ``takes_words`` which is true is given inputs that are all bfloat16 as they are stored.
    """

    @property
    def needs_statistic(self) -> bool:
        """Whether ``measure`` must run first."""

    def measure(self, stream: Stream) -> Statistic:
        """Look at the whole tensor."""

    def merge(self, x: Numbers, start: int, statistic: Statistic, out: Floats) -> None:
        """Merge some rows.

        Parameters
        ----------
        x : [n_inputs, n_rows, n_cols] in C order, the rows from ``start`` on, float32 or, with ``takes_words``, the bits of
            bfloat16 as uint16; may be overwritten
        statistic : what ``measure`` returned, or None
        out : float32[n_rows, n_cols] in C order, to be filled; not yet rounded
        """


class Local:
    """Base of operators that need no statistic."""

    needs_statistic = False

    def measure(self, stream: Stream) -> Statistic:
        """Nothing to measure."""
        return None


@dataclass(frozen=True)
class Bound:
    """A method with the parameters of one tensor, which decide all that its operator does."""

    method: str
    task: Task
    operator: Operator = field(compare=False)


@dataclass(frozen=True)
class Method:
    """One merge method.

    Attributes
    ----------
    name : spelling in recipes
    title : for people
    source : the paper, or where else it was described
    parameters : what recipes may set
    bind : the operator of a tensor; BadInput when its parameters make no sense
    base : whether ``base_model`` plays a part: ``required``, ``optional``, or ``ordinary``: it is an input like others
    least, most : number of inputs, the base not counted unless it is ordinary
    alone : what becomes of a tensor that only some inputs have: ``copy`` of the only one, ``base``: a copy if it is the
        base's, ``merge`` what there is
    """

    name: str
    title: str
    source: str
    parameters: tuple[Parameter, ...]
    bind: Callable[[Task], Operator]
    base: Literal["required", "optional", "ordinary"] = "required"
    least: int = 1
    most: int | None = None
    alone: Literal["copy", "base", "merge"] = "merge"

    def bound(self, task: Task) -> Bound:
        """The method for one tensor; BadInput when its parameters make no sense."""
        return Bound(self.name, task, self.bind(task))
