"""Rows in, encoded rows out: the last step of every output tensor.

A chunk goes through in tiles of rows that fit the second-level cache: read as float32 and looked at for NaN and Inf (in one
pass where bfloat16 is stored), encoded and, when asked, decoded again to measure the error. Rows that are stored in the
wanted encoding already are copied unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np

from ..errors import BadInput
from ..kernels import load
from ..rows import Bytes, File, Floats, Json, Merge, Quality, Rows, Span, digest_of, identity_of, matrix_shape, walk
from .base import Codec, QuantizeBf16, Words, codec
from .overflow import TooLarge, first_overflow, may_overflow
from .types import TensorType

#: Types whose values are looked at for NaN and Inf also where they are only copied.
FLOATS = ("F32", "F16", "BF16", "F64")
#: Ranges of bytes of a tensor that are compared with those of others.
_LOOKED_AT = 64
#: Block types whose scales have no NaN: bytes of exponents, all of which mean a power of two to runtimes.
_NUMBERS = ("MXFP4",)
#: Types of which a core makes more than half a gigaweight a second, where no importance takes part.
_QUICK = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "SFP", "I8")


class Encoding:
    """One way an output tensor is written: a tensor type, and what belongs to it.

    Parameters
    ----------
    rows : where the values come from
    tensor_type : encoding of the output
    weights : float32[n_slices, n_cols] importance, each slice for an equal share of the rows (an expert); or None
    allow_nonfinite : let values overflow the type instead of refusing them
    measure : decode again and add up the error
    compat : reproduce defects of the reference
    own_codec : gives the codec of this tensor alone, where that is not the codec of the type; it follows from ``rows``
    """

    def __init__(
        self,
        rows: Rows,
        tensor_type: TensorType,
        *,
        weights: Floats | None = None,
        allow_nonfinite: bool = False,
        measure: bool = False,
        compat: bool = False,
        own_codec: Callable[[], Codec] | None = None,
    ) -> None:
        self.type = tensor_type
        self.n_rows, self.n_cols = matrix_shape(rows.shape)
        self.row_bytes = tensor_type.row_bytes(self.n_cols)
        self.slice_rows = max(1, self.n_rows if weights is None else self.n_rows // len(weights))
        self._rows = rows
        self._weights = weights
        self._allow_nonfinite = allow_nonfinite
        self._measure = measure
        self._compat = compat
        self._codec: Codec | None = None
        self._own_codec = own_codec
        # The same bytes in and out, NaN and all; or blocks that another container has in another order.
        self.copies = own_codec is None and rows.native(tensor_type.name, 0, 0) is not None

    @property
    def n_bytes(self) -> int:
        """Bytes of all rows."""
        return self.n_rows * self.row_bytes

    @property
    def has_weights(self) -> bool:
        """Whether importance weights take part."""
        return self._weights is not None

    @property
    def needs_values(self) -> bool:
        """Whether rows must be read as float32.

        Numbers that are no floats or have no codec, and blocks that can hold nothing but numbers, are only copied.
        """
        may_be_nan = self.type.block_size > 1 and bool(self.type.module) and self.type.name not in _NUMBERS
        return not self.copies or self.type.name in FLOATS or may_be_nan

    @property
    def needs_kernel(self) -> bool:
        """Whether compiled code takes part; plain copies and float32 need none."""
        return not self.copies and self.type.name != "F32"

    @property
    def weights(self) -> Floats | None:
        """float32[n_slices, n_cols] importance, or None."""
        return self._weights

    def identity(self) -> Json:
        """What decides its bytes beside the rows: whatever else it was given decides what is refused or measured."""
        return [identity_of(self.type), identity_of(self._weights), self._compat]

    def warm_up(self) -> None:
        """Load and compile what ``encode`` needs, so that worker threads do not wait for each other."""
        if self.copies and not self._measure:
            return
        found = self._found_codec()
        _tile_kernels()
        if found.warm_up is not None:
            found.warm_up()
            return
        n_cols = found.type.block_size
        x = np.zeros((1, n_cols), np.float32)
        out = np.empty((1, found.type.row_bytes(n_cols)), np.uint8)
        weights = None if self._weights is None else np.ones(n_cols, np.float32)
        if self._rows.dtype == "BF16" and (direct := self.direct()):
            words = np.zeros((1, n_cols), np.uint16)
            words.flags.writeable = False
            direct(words, out)
        elif not self.copies:
            found.quantize(x, out, weights, self._compat)
        if self._measure:
            found.dequantize(out, x)

    def direct(self) -> QuantizeBf16 | None:
        """What encodes bfloat16 rows without a tile, where that gives the same as ``encode``."""
        if self.copies or self._measure or self._weights is not None or not self.needs_kernel:
            return None
        return self._found_codec().quantize_bf16

    def make(self, a: int, b: int, out: Bytes) -> float | None:
        """See ``Rows.make``: the rows ``a..b`` as they are to be written."""
        return None if self._measure else self._rows.make(self.type.name, a, b, out)

    def decode(self, stored: Bytes, out: Floats) -> None:
        """The values of rows uint8[n, row_bytes] as they were written, into float32[n, n_cols]."""
        self._found_codec().dequantize(stored, out)

    def importance(self, row: int) -> Floats | None:
        """float32[n_cols] importance of the columns of ``row``, which is that of its slice; or None."""
        return None if self._weights is None else self._weights[row // self.slice_rows]

    def _found_codec(self) -> Codec:
        if self._codec is None:
            self._codec = codec(self.type.name) if self._own_codec is None else self._own_codec()
        return self._codec

    def encode(self, name: str, a: int, x: Floats, largest: float, out: Bytes, spare: Floats) -> Quality:
        """Encode the rows ``x`` = float32[n, n_cols], which begin with row ``a``, into ``out`` = uint8[n, row_bytes].

        Parameters
        ----------
        name : of the tensor, for messages
        largest : largest magnitude in ``x``, NaN when there is one
        spare : float32[>= n * n_cols] to decode into

        Raises
        ------
        TooLarge : a value too large for the encoding; names tensor and row
        """
        b = a + len(x)
        quality = Quality(sum_squared_error=0.0 if self._measure else math.nan)
        if self.copies:
            stored = self._rows.native(self.type.name, a, b)
            assert stored is not None
            out[...] = stored
            if not self.needs_values:
                return quality
        else:
            try:
                self._found_codec().quantize(x, out, self.importance(a), self._compat)
            except TooLarge as e:
                raise TooLarge(a + e.row, self.type, name) from None
        risky = may_overflow(self.type, largest)
        if self._measure or risky:
            y = spare[: x.size].reshape(x.shape)
            self._found_codec().dequantize(out, y)
            if risky and (row := first_overflow(y)) is not None:
                if not self._allow_nonfinite:
                    raise TooLarge(a + row, self.type, name)
                quality.nonfinite = int(y.size - np.count_nonzero(np.isfinite(y)))
            if self._measure:
                with np.errstate(invalid="ignore", over="ignore"):
                    np.subtract(y, x, out=y)
                    error = y.reshape(-1)
                    quality.sum_squared_error = float(np.dot(error, error))
                    quality.max_error = float(np.abs(error, out=error).max(initial=0))
        return quality


def mark_read_again(items: Sequence[EncodedRows]) -> None:
    """Set ``read_again`` of ``items``, which are made in this order: halves of interleaved rows are made of the same pages."""
    users: dict[Rows, list[EncodedRows]] = {}
    for item in items:
        for rows in walk(item.rows):
            if not rows.sources:
                users.setdefault(rows, []).append(item)
    for sharing in users.values():
        behind: list[Span] = []
        for item in reversed(sharing if len(sharing) > 1 else ()):
            spans = list(islice(item.spans(0, item.n_rows), _LOOKED_AT))
            item.read_again = item.read_again or any(_overlap(a, b) for a in spans for b in behind)
            behind += spans


def _overlap(a: Span, b: Span) -> bool:
    return a.file is b.file and a.offset < b.offset + b.length and b.offset < a.offset + a.length


class EncodedRows:
    """An output tensor, written in one or more encodings from one read.

    Parameters
    ----------
    name : for messages and progress
    rows : where the values come from
    parts : the encodings
    allow_nonfinite : count NaN and Inf instead of refusing them
    number : what tells it from the other items of its plan

    Attributes
    ----------
    read_again : whether items behind it are made of bytes that it is made of
    """

    def __init__(
        self, name: str, rows: Rows, parts: Iterable[Encoding] = (), allow_nonfinite: bool = False, number: int = 0
    ) -> None:
        self.number = number
        self.name = name
        self.rows = rows
        self.n_rows, self.n_cols = matrix_shape(rows.shape)
        self.parts: list[Encoding] = []
        self.row_bytes: list[int] = []
        self.read_again = False
        self._allow_nonfinite = allow_nonfinite
        self._compiled = False
        self._slice_rows = max(1, self.n_rows)
        self._order: list[int] = []
        for part in parts:
            self.add(part)

    def add(self, part: Encoding) -> int:
        """Write the rows in one more encoding, before any are made; the number of that part."""
        self.parts.append(part)
        self.row_bytes.append(part.row_bytes)
        self._compiled = self._compiled or part.needs_kernel
        self._slice_rows = min(self._slice_rows, part.slice_rows)
        # Block types see zeros for NaN and Inf in the shared tile, so the types that keep them come first.
        self._order = sorted(range(len(self.parts)), key=lambda k: self.parts[k].type.block_size > 1)
        return len(self.parts) - 1

    @property
    def looks(self) -> Sequence[Rows]:
        """See ``Rows.looks``."""
        return self.rows.looks

    @property
    def whole(self) -> bool:
        """See ``Rows.whole``."""
        return self.rows.whole

    @property
    def together(self) -> int:
        """See ``Rows.together``."""
        return self.rows.together

    @property
    def is_quick(self) -> bool:
        """Whether rows are made about as fast as they are read: stored numbers that are copied, rounded, or added up."""
        types = all(p.copies or (p.type.name in _QUICK and not p.has_weights) for p in self.parts)
        return types and all(
            rows.stored(0, 0) is not None or (isinstance(getattr(rows, "how", None), Merge) and not rows.whole)
            for rows in walk(self.rows)
        )

    def spans(self, start: int, stop: int) -> Iterator[Span]:
        """See ``Rows.spans``."""
        return self.rows.spans(start, stop)

    def everything(self) -> Iterator[Span]:
        """See ``Rows.everything``."""
        return self.rows.everything()

    @property
    def files(self) -> list[File]:
        """See ``Rows.files``."""
        return self.rows.files

    def identity(self) -> str:
        """What decides its bytes besides the bytes of files, as a digest: rows and encodings."""
        return digest_of([self.rows.identity(), [part.identity() for part in self.parts]])

    def prefetch(self, start: int, stop: int) -> None:
        """Pass the hint on."""
        self.rows.prefetch(start, stop)

    def release(self, start: int, stop: int) -> None:
        """Pass the hint on."""
        self.rows.release(start, stop, self.read_again)

    def fill(self, start: int, stop: int, outs: Sequence[Bytes | None], scratch: Floats) -> list[Quality]:
        """Encode rows ``start..stop``; see ``engine.plan.Item``. The more ``scratch``, the larger the tiles.

        Raises
        ------
        BadInput : NaN or Inf in the source, or a value too large for the encoding; names tensor, row and column
        """
        qualities = [Quality() for _ in self.parts]
        # The rows that a source may have to copy for this fit in as many bytes as the scratch.
        if self._filled_directly(start, stop, outs, max(1, 2 * len(scratch) // self.n_cols)):
            return [Quality(sum_squared_error=math.nan if out is not None else 0.0) for out in outs]
        half = len(scratch) // 2
        step = max(1, half // self.n_cols)
        wanted = [k for k in self._order if outs[k] is not None]
        reads = any(self.parts[k].needs_values for k in wanted)
        b = start
        while b < stop:
            a = b
            b = min(a + step, stop, a - a % self._slice_rows + self._slice_rows)
            x = scratch[: (b - a) * self.n_cols].reshape(b - a, self.n_cols)
            largest, nonfinite = 0.0, 0
            if reads:
                largest = self._read(a, b, x)
                nonfinite = 0 if np.isfinite(largest) else self._nonfinite(x, a)
            for k in wanted:
                if nonfinite and self.parts[k].type.block_size > 1:  # block searches have no meaning for them
                    np.nan_to_num(x, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
                out = outs[k]
                assert out is not None
                encoded = self.parts[k].encode(self.name, a, x, largest, out[a - start : b - start], scratch[half:])
                encoded.nonfinite = max(encoded.nonfinite, nonfinite)
                qualities[k].add(encoded)
        return qualities

    def _filled_directly(self, start: int, stop: int, outs: Sequence[Bytes | None], step: int) -> bool:
        """Fill like ``fill``, but without a float32 tile, ``step`` rows at a time: only for a single encoding that supports it.

        False where it is not supported or values need the slow path; the contents of ``outs`` are then undefined.
        """
        wanted = [(part, out) for part, out in zip(self.parts, outs, strict=True) if out is not None]
        if len(wanted) != 1:
            return False
        part, out = wanted[0]
        direct = part.direct()
        is_made = part.make(0, 0, out[:0]) is not None
        if (direct is None and not is_made) or not out.flags.c_contiguous:
            return False
        for a in range(start, stop, step):
            b = min(a + step, stop)
            piece = out[a - start : b - start]
            words = None if is_made else self._words(a, b)
            largest = part.make(a, b, piece) if words is None or direct is None else direct(words, piece)
            if largest is None or may_overflow(part.type, largest):
                return False
        return True

    def _words(self, a: int, b: int) -> Words | None:
        """Rows ``a..b`` as the bits of bfloat16, uint16[b - a, n_cols], where they are stored so and aligned."""
        stored = self.rows.stored(a, b) if self.rows.dtype == "BF16" else None
        if stored is None or not stored.flags.c_contiguous:
            return None
        words = stored.view(np.uint16)
        words.flags.writeable = False  # as mapped files are: one compiled kernel serves all sources
        return words if words.flags.aligned else None

    def _read(self, a: int, b: int, x: Floats) -> float:
        """Fill ``x`` with rows ``a..b``; their largest magnitude, NaN when there is one."""
        if not self._compiled:
            self.rows.read(a, b, x)
            return float(max(x.max(initial=0), -x.min(initial=0)))
        tiles, words = _tile_kernels(), self._words(a, b)
        if words is not None:
            return float(tiles.widen_bf16(words.reshape(-1), x.reshape(-1)))
        self.rows.read(a, b, x)
        return float(tiles.largest(x.reshape(-1)))

    def _nonfinite(self, x: Floats, first_row: int) -> int:
        """How many NaN and Inf there are in ``x``; refuses them unless they are allowed."""
        row, col = (int(i) for i in np.argwhere(~np.isfinite(x))[0])
        if not self._allow_nonfinite:
            raise BadInput(
                f"tensor {self.name!r} holds {x[row, col]} at row {first_row + row}, column {col}: not a finite number",
                "The checkpoint is damaged or diverged; --allow-nonfinite converts it anyway.",
            )
        return int(x.size - np.count_nonzero(np.isfinite(x)))


@lru_cache(maxsize=1)
def _tile_kernels() -> Any:
    """The kernels that take in a tile, compiled; imports numba."""
    tiles = load(".kernels.tiles")
    words, x = np.zeros(1, np.uint16), np.empty(1, np.float32)
    words.flags.writeable = False
    tiles.widen_bf16(words, x)
    tiles.largest(x)
    return tiles
