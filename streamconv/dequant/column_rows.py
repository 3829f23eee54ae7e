"""Decoded rows times a number for each column: what quantizers take from the inputs of a layer and leave beside its weight."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import BadInput
from ..rows import Floats
from ..sources.naming import shown
from .decoded_rows import DecodedRows, Range, whole
from .raw import Raw
from .store import Store

#: ModelOpt: the inputs are multiplied by it before they meet the stored weight
_ENDING = ".pre_quant_scale"
_SCALES = ("F32", "F16", "BF16")


class ScaledColumns(DecodedRows):
    """``inner[n, k] · factors[k]``, rounded once.

    Parameters
    ----------
    inner : float32 rows that nothing has rounded yet
    factors : as many numbers as columns
    """

    def __init__(self, inner: DecodedRows, factors: Raw) -> None:
        encoding = f"{inner.encoding}, columns scaled"
        super().__init__(inner.name, inner.shape, inner.dtype, encoding, [*inner.parts, factors])
        self.kernels = tuple(dict.fromkeys((*inner.kernels, ".kernels.rounding")))
        self._inner = inner
        self._factors = factors

    def _decode(self, start: int, stop: int, out: Floats) -> None:
        self._inner.decode_exactly(start, stop, out)
        out *= self._factors.floats(0, self.n_cols)

    def _ranges(self, start: int, stop: int) -> Iterable[Range]:
        yield from self._inner.ranges(start, stop)
        yield whole(self._factors)


def scale_columns(store: Store) -> None:
    """Fold the factors of inputs into the weights that were decoded.

    Raises
    ------
    BadInput : factors that do not fit their weight; names file and tensor
    """
    for name, module in list(store.ending(_ENDING)):
        weight = f"{module}.weight"
        inner = store.made_of(weight)
        if inner is None:
            continue  # a part of nothing, which is refused
        with store.about(name, weight):
            factors = store.companion(weight, name, _SCALES)
            if factors.n_values != inner.n_cols:
                raise BadInput(f"{factors} has shape {list(factors.shape)}, {shown(weight)} has {inner.n_cols} columns")
            store.replace(inner, ScaledColumns(inner, factors))
