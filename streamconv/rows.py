"""Row sources: the one interface that sources, transforms, merges and quantizers share.

A tensor is a matrix of ``n_rows = prod(shape[:-1])`` rows and ``n_cols = shape[-1]`` columns (a scalar is 1 x 1, a vector
one row). A *row source* hands out any range of its rows as float32. Row sources wrap row sources: a stored tensor, the
decoder of a quantized one, a permutation of heads and a stack of experts all have this shape, so the consumer of one
never knows how deep the tree is.

Contract
--------
* ``read`` is a pure function of ``(start, stop)``: thread-safe, the same bits for every chunking of the rows.
* Values are the stored ones widened to float32, exactly where the stored type allows it.
* ``native(kind, 0, 0)`` tells for all rows whether they are to be had as ``kind``: where it is not None, no other range is.
* ``spans`` names every byte of every file that the rows are made of; where ``whole``, ``everything`` does.
* Rows of equal ``identity`` over equal bytes are equal. It follows from the constructor's arguments, so whatever decides a
  value is one of them (or a constant of the code), and none of them changes afterwards.
* What values need to know of the whole tensor is what ``measure`` finds, a pure function of the sources; ``looks_first`` says
  that there is such a thing. Once ``measured`` has it, reading rows reads their ``spans`` and no more.
* Row sources are compared and hashed by identity, as objects are that say nothing of it (a dataclass needs ``eq=False``).
* ``prefetch``/``release`` are hints about the pages behind a range of rows; ignoring them is correct.
* Not checked here: that values are finite.

``tests/row_contract.py`` is this contract as a check; every kind of rows has a line in ``tests/test_row_contract.py``.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from math import prod
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np
import xxhash
from numpy.typing import NDArray

from .workers import Workers

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
#: what ``json`` can write
Json = Any
T = TypeVar("T", bound="Described")
K = TypeVar("K")
N = TypeVar("N", bound=np.generic)
#: held by who measures rows that were read before they had been
_measuring = threading.RLock()


@dataclass
class Quality:
    """What encoding some rows did to their values; sums over any set of rows.

    Attributes
    ----------
    nonfinite : NaN and Inf in the source, or in what was made of it where those are more
    sum_squared_error, max_error : decoded values against the source's; 0 unless measured
    """

    nonfinite: int = 0
    sum_squared_error: float = 0.0
    max_error: float = 0.0

    def add(self, other: Quality) -> None:
        """Take in the rows that ``other`` describes."""
        self.nonfinite += other.nonfinite
        self.sum_squared_error += other.sum_squared_error
        self.max_error = max(self.max_error, other.max_error)


#: ranges of later rows that are compared with those that are released
_LOOKED_AT = 256


class File:
    """A file that rows lie in."""

    path: Path

    def identity(self) -> Json:
        """Its name. Which of the inputs it is, and what is in it, is told elsewhere."""
        return self.path.name

    @property
    def pin(self) -> bytes:
        """What decides its content where that cannot change unnoticed, such as a digest that is checked; else empty."""
        return b""

    def view(self, offset: int, length: int) -> Bytes:
        """``length`` bytes from ``offset`` as uint8."""
        raise NotImplementedError

    def prefetch(self, offset: int, length: int) -> None:
        """These bytes will be read soon."""

    def release(self, offset: int, length: int) -> None:
        """These bytes will not be read again soon."""

    def unmap(self, offset: int, length: int) -> None:
        """These bytes will be read again, but not at once: they need not be in this process meanwhile."""


class Span(NamedTuple):
    """``length`` bytes of ``file`` from ``offset`` on."""

    file: File
    offset: int
    length: int


class Described:
    """What has nothing but its constructor's arguments to tell it from others of its class.

    Attributes
    ----------
    scheme : of a class; raised whenever the same arguments would give other values than before
    """

    scheme: ClassVar[int] = 1
    _arguments: tuple[Any, ...]

    def __new__(cls: type[T], *args: Any, **named: Any) -> T:
        """Keep the arguments."""
        self = super().__new__(cls)
        self._arguments = (*args, named) if named else args
        return self

    def identity(self) -> Json:
        """What decides its values besides the bytes of files: class, scheme and arguments, those of its sources included."""
        return [type(self).__name__, self.scheme, *map(identity_of, self._arguments)]


class Rows(Described):
    """A matrix that is read a few rows at a time.

    Attributes
    ----------
    shape : logical shape, slowest dimension first
    dtype : precision of the values, spelled as in safetensors: ``F32``, ``F16``, ``BF16``, ``I8``, …
    looks_first : whether values depend on a look at all rows of the sources, such as a norm or a threshold
    together : rows that are made of the same bytes, in groups of so many; 0: each is made of bytes of its own
    """

    shape: tuple[int, ...]
    dtype: str
    looks_first: bool = False
    together: int = 0
    _fact: Any = None

    def read(self, start: int, stop: int, out: Floats | None = None) -> Floats:
        """Rows ``start..stop`` as float32[stop - start, n_cols]; written into ``out`` (any row stride) when given."""
        n_rows, n_cols = matrix_shape(self.shape)
        if not 0 <= start <= stop <= n_rows:
            raise IndexError(f"{self!r}: rows {start}..{stop} of {n_rows}")
        if out is None:
            out = np.empty((stop - start, n_cols), np.float32)
        elif out.shape != (stop - start, n_cols):
            raise ValueError(f"{self!r}: out has shape {out.shape} for rows {start}..{stop}")
        self._fill(start, stop, out)
        return out

    def _fill(self, start: int, stop: int, out: Floats) -> None:
        """Write rows ``start..stop`` into ``out``, of any row stride; for those that do not define ``read`` itself."""
        raise NotImplementedError

    def stored(self, start: int, stop: int) -> Bytes | None:
        """The same rows as uint8[stop - start, row_bytes] in the encoding ``dtype`` names, or None when not stored so."""
        return self.native(self.dtype, start, stop)

    def native(self, kind: str, start: int, stop: int) -> Bytes | None:
        """The same rows in the encoding ``kind``, uint8[stop - start, row_bytes]: a view where they lie so, a copy where they
        are put in order; None where that takes more than copying. An empty range tells for all rows.
        """
        return None

    def numbers(self, kind: str, start: int, stop: int) -> Bytes | None:
        """The same as ``native``, as uint8[stop - start, n_cols, number_bytes], where each number is bytes of its own; of columns
        a view, too.
        """
        found, n_cols = self.native(kind, start, stop), matrix_shape(self.shape)[1]
        if found is None or not n_cols or found.shape[1] % n_cols:
            return None
        return found.reshape(len(found), n_cols, found.shape[1] // n_cols)

    def make(self, kind: str, start: int, stop: int, out: Bytes) -> float | None:
        """Fill ``out`` uint8[stop - start, row_bytes], C order, with the rows in the encoding ``kind`` where computing them so
        saves a pass over float32; their largest magnitude, NaN when there is one. None where it does not, for all rows.
        """
        return None

    def measure(self, workers: Workers) -> Json:
        """Look at all that the rows depend on as a whole; for those that look first.

        A job calls it once before the first row of a tensor, when all ``sources`` are measured. The value is never None, and
        the same with any workers; floats are exact as numbers, arrays go through ``packed``. Goes through pieces that ``workers``
        shares among threads, and asks ``workers.go_on`` between others.

        Raises
        ------
        Stopped : it is no longer needed
        BadInput : the sources cannot be made into these rows
        """
        raise NotImplementedError

    def measured(self, value: Json) -> None:
        """Take what ``measure`` found, here or in another process, before any row is read; None: no more rows will be."""
        self._fact = value

    @property
    def fact(self) -> Any:
        """What was ``measured``, in whatever form the class keeps it; None where nothing has to be.

        Readers outside of a job measure nothing before they read: then it is done now, by one thread.
        """
        if self.looks_first and self._fact is None:
            with _measuring:
                if self._fact is None:
                    self.measured(self.measure(Workers()))
        return self._fact

    @cached_property
    def sources(self) -> Sequence[Rows]:
        """The row sources it is computed from."""
        return tuple(dict.fromkeys(_inside(self._arguments, Rows)))

    @property
    def files(self) -> list[File]:
        """Every file that ``identity`` mentions, in that order and as often."""
        return list(_inside(self._arguments, File))

    def spans(self, start: int, stop: int) -> Iterator[Span]:
        """Every range of every file that rows ``start..stop`` are read from, beside a look at the whole tensor.

        Here: those of the same rows of all sources.
        """
        for source in self.sources:
            yield from source.spans(start, stop)

    @cached_property
    def looks(self) -> Sequence[Rows]:
        """Those of ``walk(self)`` that look first, in the order in which they can be measured: each after what it looks at."""
        found = dict.fromkeys(look for source in self.sources for look in source.looks)
        return (*found, self) if self.looks_first else tuple(found)

    @property
    def whole(self) -> bool:
        """Whether the rows depend on more than their ``spans``: on ``everything``."""
        return self.looks_first or any(source.whole for source in self.sources)

    def everything(self) -> Iterator[Span]:
        """Every range of every file that any of the rows depends on."""
        if not self.whole:
            yield from self.spans(0, matrix_shape(self.shape)[0])
            return
        for source in self.sources:
            yield from source.everything()

    def prefetch(self, start: int, stop: int) -> None:
        """These rows will be read soon."""
        for span in self.spans(start, stop):
            span.file.prefetch(span.offset, span.length)

    def release(self, start: int, stop: int, cached: bool = False) -> None:
        """These rows will not be read again soon; what rows behind them need, too, is kept.

        Parameters
        ----------
        cached : others will be made of the same bytes, which stay in the page cache
        """
        kept = list(islice(self.spans(stop, matrix_shape(self.shape)[0]), _LOOKED_AT))
        for span in self.spans(start, stop):
            for file, offset, length in _without(span, kept):
                (file.unmap if cached else file.release)(offset, length)


def _without(span: Span, kept: Iterable[Span]) -> list[Span]:
    """What of ``span`` is in none of ``kept``."""
    rest = [span]
    for other in kept:
        if other.file is span.file:
            rest = [part for each in rest for part in _cut(each, other)]
    return rest


def _cut(span: Span, other: Span) -> list[Span]:
    file, a, b = span.file, span.offset, span.offset + span.length
    c, d = max(a, other.offset), min(b, other.offset + other.length)
    return [span] if c >= d else [Span(file, s, e - s) for s, e in ((a, c), (d, b)) if e > s]


def walk(rows: Rows) -> Iterator[Rows]:
    """``rows`` and all that they are computed from, each once, the nearest of a branch first."""
    seen: set[int] = set()
    ahead = [rows]
    while ahead:
        found = ahead.pop()
        if id(found) not in seen:
            seen.add(id(found))
            yield found
            ahead.extend(reversed(found.sources))


def packed(array: NDArray[Any]) -> str:
    """The bits of an array as text, for values that travel as JSON; its type and shape are not in it."""
    return base64.b64encode(
        np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    ).decode()


def unpacked(text: str, dtype: type[N]) -> NDArray[N]:
    """The numbers of ``packed``, flat."""
    return np.frombuffer(base64.b64decode(text), np.dtype(dtype).newbyteorder("<")).astype(dtype)


def identity_of(value: Any) -> Json:
    """What decides ``value``, JSON-able.

    Fields of dataclasses that take no part in comparing (``compare=False``) decide nothing. What has an ``identity`` says it.

    Raises
    ------
    TypeError : a kind of value that is not known here, and so could decide something unseen
    """
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, (list, tuple)):
        return value if all(type(each) in _PLAIN for each in value) else [identity_of(each) for each in value]
    if hasattr(value, "identity"):
        return value.identity()
    if isinstance(value, Mapping):
        return [[identity_of(key), identity_of(each)] for key, each in value.items()]
    if isinstance(value, (np.ndarray, np.generic)):
        array = np.ascontiguousarray(value)
        return [array.dtype.str, list(array.shape), xxhash.xxh3_128_hexdigest(array.reshape(-1).view(np.uint8).data)]
    if dataclasses.is_dataclass(value):
        return [type(value).__name__, *(identity_of(each) for each in _decisive(value))]
    raise TypeError(f"{type(value).__name__} does not say what decides it: give it an identity()")


def digest_of(identity: Json) -> str:
    """SHA-256 of what decides something, in hex digits."""
    return hashlib.sha256(json.dumps(identity, separators=(",", ":"), ensure_ascii=True).encode()).hexdigest()


#: values that are what decides them
_PLAIN = (str, int, float, bool)


def _decisive(value: Any) -> list[Any]:
    """The fields of a dataclass's instance that decide something."""
    return [getattr(value, field.name) for field in dataclasses.fields(value) if field.compare]


def _inside(value: Any, kind: type[K]) -> Iterator[K]:
    """Whatever of ``kind`` is among the arguments of something, those of other kinds searched too."""
    if isinstance(value, kind):
        yield value
    elif isinstance(value, Described):
        yield from _inside(value._arguments, kind)
    elif isinstance(value, (list, tuple)):
        for each in value:
            if type(each) not in _PLAIN:
                yield from _inside(each, kind)
    elif isinstance(value, Mapping):
        yield from _inside([*value.values()], kind)
    elif dataclasses.is_dataclass(value):
        yield from _inside(_decisive(value), kind)


class Merge(NamedTuple):
    """How rows are merged.

    Attributes
    ----------
    method : what recipes call it
    n_inputs : row sources that are merged
    looks_first : whether a statistic of the whole tensor comes before its first row
    """

    method: str
    n_inputs: int
    looks_first: bool


def merge_of(rows: Rows) -> Merge | None:
    """How ``rows``, or what they are made of, are merged; None where nothing is."""
    found = (getattr(each, "how", None) for each in walk(rows))
    return next((how for how in found if isinstance(how, Merge)), None)


def matrix_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """``(n_rows, n_cols)`` of a tensor seen as a matrix; a scalar is (1, 1).

    >>> matrix_shape((8, 4, 32)), matrix_shape((32,)), matrix_shape(())
    ((32, 32), (1, 32), (1, 1))
    """
    return (prod(shape[:-1]), shape[-1]) if shape else (1, 1)
