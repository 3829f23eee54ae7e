"""BitNet: ternary weights, four to a byte, and one scale for the matrix.

The rows of the matrix are four quarters: a packed row holds row ``r`` of each, the first quarter in the low bits, and a code of
two bits is the weight plus one. Layers of class ``bitlinear`` divide by the scale, those of ``autobitlinear`` multiply by it.
GGUF's TQ1_0 and TQ2_0 hold the same three values.

Source: transformers/integrations/bitnet.py (5.2): ``unpack_weights``, ``BitLinear``, ``AutoBitLinear``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from ...errors import BadInput
from ...kernels import load
from ...rows import Floats
from ...sources.naming import shown
from ..decoded_rows import DecodedRows, Range, whole
from ..format import Format
from ..raw import Raw, frozen
from ..store import Store

_CLASSES = ("bitlinear", "autobitlinear")
_PER_BYTE = 4


class TernaryRows(DecodedRows):
    """``parts`` are codes uint8[n_rows / 4, n_cols] and the scale; ``divides``: by the scale."""

    kernels = (".dequant.kernels.levels",)

    def __init__(self, name: str, parts: list[Raw], divides: bool) -> None:
        n_packed, n_cols = parts[0].shape
        super().__init__(name, (_PER_BYTE * n_packed, n_cols), "F32", "bitnet (ternary)", parts)
        self._divides = divides
        self._n_packed = n_packed

    def _decode(self, start: int, stop: int, out: Floats) -> None:
        scale = self.parts[1].floats(0, 1)
        with np.errstate(divide="ignore"):
            # a quotient of -1, 0 or 1 is as well a product with the rounded inverse
            factor = frozen((np.float32(1) / scale if self._divides else scale).reshape(1, 1))
        one, own = frozen(np.ones((1, 1), np.float32)), np.zeros(stop - start, np.int64)
        levels = np.empty(out.shape, np.uint8)
        for quarter, a, b in self._runs(start, stop):
            packed = self.parts[0].bytes(a * self.n_cols, b * self.n_cols).reshape(b - a, self.n_cols)
            first = quarter * self._n_packed + a - start
            np.bitwise_and(packed >> np.uint8(2 * quarter), np.uint8(3), out=levels[first : first + b - a])
        if levels.size and levels.max() > 2:
            raise BadInput(f"{self.parts[0]} contains a code that is not one of the three of ternary weights")
        load(".dequant.kernels.levels").scaled(
            frozen(levels), np.uint8(0), one, factor, own, self.n_cols, np.float32(1), out
        )

    def _runs(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """``start..stop`` cut where a quarter ends: its number, and the packed rows from and to."""
        while start < stop:
            quarter, first = divmod(start, self._n_packed)
            last = min(self._n_packed, first + stop - start)
            yield quarter, first, last
            start += last - first

    def _ranges(self, start: int, stop: int) -> Iterable[Range]:
        for _, a, b in self._runs(start, stop):
            yield self.parts[0], a * self.n_cols, b * self.n_cols
        yield whole(self.parts[1])


def find(store: Store) -> None:
    """Recognise bytes with one scale where config.json says BitNet.

    Raises
    ------
    BadInput : a scale is missing or does not fit; names file and tensor
    """
    if store.scheme.method != "bitnet":
        return
    for name, module in list(store.ending(".weight")):
        if store.tensors[name].dtype == "U8":
            with store.about(name, name):
                codes = store.raw(name)
                scale = store.companion(name, f"{module}.weight_scale", ("F32", "F16", "BF16"), 1)
                if len(codes.shape) != 2:
                    raise BadInput(f"{codes} has shape {list(codes.shape)}, not that of a matrix")
                store.put(name, TernaryRows(name, [codes, scale], _class(store) == "bitlinear"))


def check(store: Store) -> None:
    """Refuse classes of layers that compute something else.

    Raises
    ------
    BadInput : such a class, by its name
    """
    if _class(store) not in _CLASSES:
        raise BadInput(
            f"{store.path}: quantization_config: linear_class is {shown(str(_class(store)))}, not one of {', '.join(_CLASSES)}"
        )


def _class(store: Store) -> object:
    return store.scheme.values.get("linear_class") or "bitlinear"


FORMAT = Format(
    find, methods=("bitnet",), settings=("linear_class", "quantization_mode", "rms_norm_eps"), check=check,
    likely_parts={r"\.weight_scale$": "a ternary weight, which is missing or of another type"},
)  # fmt: skip
