"""HQQ: half-quadratic quantization with 8, 4, 3, 2 or 1 bits, groups along either axis.

The matrix is seen as groups by members (axis 1) or members by groups (axis 0) and packed by parts of its rows: a packed row
holds row ``r`` of every part, the first part in the top bits. So any run of the flat matrix is one run of words, as long as it
stays within a part. ``(code − zero) · scale`` is computed in the compute type, with a rounding after each step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from ...errors import BadInput
from ...kernels import load
from ...rows import Floats
from ...sources.naming import shown
from ..decoded_rows import DecodedRows, Range, numbers
from ..format import Format
from ..raw import Raw
from ..scheme import first_of
from ..store import Store

#: of a dimension and of all together
_MAX_SIZE = 2**59
_MAX_DIMENSIONS = 64
_DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
#: parts of a word, and bits from one to the next
_PARTS = {8: (1, 8), 4: (2, 4), 3: (10, 3), 2: (4, 2), 1: (8, 1)}
_META = ("nbits", "group_size", "axis", "shape", "packing", "compute_dtype", "view_as_float", "unpack_view_dtype",
         "quant_scale", "quant_zero", "offload_meta", "max", "min", "encoded_state_dict", "stores_quant_config",
         "channel_wise", "optimize", "round_zero")  # fmt: skip


@dataclass(frozen=True)
class Facts:
    """What is known of one matrix; ``width`` is the number of columns of the matrix as it is packed."""

    bits: int
    axis: int
    group: int
    shape: tuple[int, ...]
    dtype: str

    @property
    def width(self) -> int:
        """Columns of the matrix as it is packed."""
        return self.group if self.axis else prod(self.shape) // self.group

    @property
    def part_rows(self) -> int:
        """Rows of a part, the last of which may be empty."""
        rows = prod(self.shape) // self.width
        return -(-rows // _PARTS[self.bits][0])


class HqqRows(DecodedRows):
    """``parts`` are codes, scales and zeros."""

    kernels = (".dequant.kernels.parts", ".kernels.rounding")

    def __init__(self, name: str, facts: Facts, parts: list[Raw]) -> None:
        encoding = f"hqq-{facts.bits}bit (group {facts.group}, axis {facts.axis})"
        super().__init__(name, facts.shape, facts.dtype, encoding, parts)
        self._facts = facts
        self._itemsize = 4 if facts.bits == 3 else 1

    def _runs(self, first: int, last: int) -> Iterator[tuple[int, int, int]]:
        """``first..last`` of the flat matrix cut where a part, or for axis 0 a row, ends: start, stop, number of the part."""
        part = self._facts.part_rows * self._facts.width
        step = part if self._facts.axis else self._facts.width
        while first < last:
            stop = min(last, (first // step + 1) * step)
            yield first, stop, first // part
            first = stop

    def _decode(self, start: int, stop: int, out: Floats) -> None:
        kernels, facts, flat = load(".dequant.kernels.parts"), self._facts, out.reshape(-1)
        count, step = _PARTS[facts.bits]
        begin = start * self.n_cols
        for a, b, number in self._runs(begin, stop * self.n_cols):
            x = flat[a - begin : b - begin]
            words = self.parts[0].bytes(*self._words(a, b, number))
            kernels.codes(
                np.array(words.view("<i4")) if facts.bits == 3 else words,
                (count - 1 - number) * step,
                (1 << step) - 1,
                x,
            )
            first, last = self._group_range(a, b)
            block, phase = (facts.group, a - first * facts.group) if facts.axis else (1, 0)
            kernels.minus_blocks(x, self.parts[2].floats(first, last), block, phase)
            self._round(x)
            kernels.times_blocks(x, self.parts[1].floats(first, last), block, phase)

    def _words(self, first: int, last: int, number: int) -> tuple[int, int]:
        """The bytes of the words of ``first..last`` of the flat matrix, which are in part ``number``."""
        begin = number * self._facts.part_rows * self._facts.width
        return (first - begin) * self._itemsize, (last - begin) * self._itemsize

    def _group_range(self, first: int, last: int) -> tuple[int, int]:
        """The groups of a run of the flat matrix, as a range."""
        facts = self._facts
        if facts.axis:
            return first // facts.group, -(-last // facts.group)
        return first % facts.width, first % facts.width + last - first

    def _ranges(self, start: int, stop: int) -> Iterable[Range]:
        for a, b, number in self._runs(start * self.n_cols, stop * self.n_cols):
            yield self.parts[0], *self._words(a, b, number)
            yield from (numbers(part, *self._group_range(a, b)) for part in self.parts[1:])


def find(store: Store) -> None:
    """Recognise matrices by ``W_q``.

    Raises
    ------
    BadInput : a part is missing or does not fit; names file and tensor
    """
    for name, module in list(store.ending(".W_q")):
        with store.about(name, f"{module}.weight"):
            _put(store, name, module)


def _put(store: Store, name: str, module: str) -> None:
    packed = store.companion(name, name)
    meta = {key: store.raw(f"{module}.{key}") for key in _META if f"{module}.{key}" in store}
    facts = _facts(store, packed, meta)
    n = prod(facts.shape)
    itemsize = 4 if facts.bits == 3 else 1
    if packed.n_bytes != facts.part_rows * facts.width * itemsize:
        raise BadInput(
            f"{packed} has {packed.n_bytes} bytes, {facts.bits}-bit codes of shape {list(facts.shape)} need"
            f" {facts.part_rows * facts.width * itemsize}"
        )
    n_groups = n // facts.group
    scales = store.companion(name, f"{module}.scale", ("F32", "F16", "BF16"), n_groups)
    zeros = store.companion(name, f"{module}.zero", ("F32", "F16", "BF16"), n_groups)
    store.put(name, HqqRows(f"{module}.weight", facts, [packed, scales, zeros]), *meta.values())


def _facts(store: Store, packed: Raw, meta: Mapping[str, Raw]) -> Facts:
    """The matrix's own numbers where the file has them, else those of config.json."""
    config: Any = store.scheme.values.get("quant_config")
    params = config.get("weight_quant_params") if isinstance(config, Mapping) else None
    own = {key: _value(key, raw) for key, raw in meta.items()}
    stated = first_of(own, params if isinstance(params, Mapping) else {}, store.scheme.values)
    if stated.get("quant_scale") or stated.get("quant_zero"):
        raise BadInput(f"{packed}: its scales or zeros are quantized themselves, which cannot be decoded")
    bits, axis, group, shape = (stated.get(key) for key in ("nbits", "axis", "group_size", "shape"))
    if type(bits) is not int or bits not in _PARTS:
        raise BadInput(f"{packed}: nbits is {shown(str(bits))}, not one of {', '.join(map(str, _PARTS))}")
    if axis not in (0, 1) or type(axis) is not int:
        raise BadInput(f"{packed}: axis is {shown(str(axis))}, not 0 or 1")
    if not isinstance(shape, (list, tuple)) or not 0 < len(shape) <= _MAX_DIMENSIONS or not all(map(_is_size, shape)):
        raise BadInput(f"{packed}: shape is {shown(str(shape))}, not a list of sizes")
    if prod(shape) > _MAX_SIZE:
        raise BadInput(f"{packed}: shape {shown(str(list(shape)))} overflows 64 bits")
    if type(group) is not int or group < 1 or prod(shape) % group:
        raise BadInput(
            f"{packed}: group_size is {shown(str(group))}, which does not divide a matrix of shape {list(shape)}"
        )
    dtype = str(stated.get("compute_dtype", "float16")).removeprefix("torch.")
    if dtype not in _DTYPES:
        raise BadInput(f"{packed}: compute_dtype is {shown(dtype)}, not one of {', '.join(_DTYPES)}")
    return Facts(bits, axis, group, tuple(shape), _DTYPES[dtype])


def _is_size(value: object) -> bool:
    return type(value) is int and 0 < value < _MAX_SIZE


def _value(key: str, raw: Raw) -> Any:
    """A number, a list of numbers or a text that is stored as a small tensor."""
    if raw.n_bytes > 1024 or raw.dtype not in ("U8", "I8", "I32", "I64", "BOOL", "F32"):
        raise BadInput(f"{raw} is {raw.dtype}{list(raw.shape)}, not small metadata of a matrix")
    if raw.dtype == "F32":
        return raw.floats(0, raw.n_values).tolist()
    found = [int(v) for v in raw.integers()]
    if key in ("packing", "compute_dtype", "unpack_view_dtype") and raw.dtype == "U8":
        return "".join(map(chr, found))
    return found[0] if not raw.shape else found


FORMAT = Format(
    find, methods=("hqq",), settings=("quant_config", "dynamic_config", "nbits", "bits", "group_size", "axis", "view_as_float",
                                      "quant_scale", "quant_zero", "offload_meta", "shape", "weight_quant_params"),
)  # fmt: skip
