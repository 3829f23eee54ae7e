"""bitsandbytes with eight bits: LLM.int8() weights, and the library's block-wise format of adapters and optimizer states."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

import numpy as np

from ...errors import BadInput
from ...kernels import load
from ...rows import Floats
from ...sources.naming import shown
from ..decoded_rows import DecodedRows, Range, numbers, whole
from ..format import Format
from ..grid_rows import Grid, IntRows
from ..raw import Raw
from ..store import Store
from .bnb4 import BNB_SETTINGS

_FORMATS = {1: "col32", 2: "col_turing", 3: "col_ampere"}
_BLOCKS = (64, 128, 256, 512, 1024, 2048, 4096)
_DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


class Int8Rows(IntRows):
    """LLM.int8(): ``(code · SCB) · fl32(1 / 127)``, two products in this order; the reference's result is float32.

    Source: ``functional.int8_vectorwise_dequant`` (bitsandbytes 0.50.2).
    """

    factor = np.float32(0.007874015718698502)


class BlockwiseRows(DecodedRows):
    """Codes of a 256-entry table with a scale per block of the flat tensor: ``code[q] · absmax``."""

    kernels = (".dequant.kernels.levels", ".kernels.rounding")

    def __init__(self, name: str, shape: tuple[int, ...], dtype: str, parts: tuple[Raw, ...], block: int) -> None:
        super().__init__(name, shape, dtype, f"bnb-8bit (block {block})", parts)
        self._block = block

    def _decode(self, start: int, stop: int, out: Floats) -> None:
        first, last, a, b = self._where(start, stop)
        codes, scales, table = (
            self.parts[0].bytes(first, last),
            self.parts[1].floats(a, b),
            self.parts[2].floats(0, 256),
        )
        load(".dequant.kernels.levels").looked_up_flat(
            codes, table, scales, self._block, first - a * self._block, out.reshape(-1)
        )

    def _where(self, start: int, stop: int) -> tuple[int, int, int, int]:
        """The codes of rows ``start..stop`` and their blocks, each from and to."""
        first, last = start * self.n_cols, stop * self.n_cols
        return first, last, first // self._block, -(-last // self._block)

    def _ranges(self, start: int, stop: int) -> Iterable[Range]:
        first, last, a, b = self._where(start, stop)
        return [(self.parts[0], first, last), numbers(self.parts[1], a, b), whole(self.parts[2])]


def find(store: Store) -> None:
    """Recognise weights by ``SCB``, and by ``codes`` beside a ``code``.

    Raises
    ------
    BadInput : a part is missing or does not fit; names file and tensor
    """
    for name, module in list(store.ending(".SCB")):
        with store.about(name, f"{module}.weight"):
            _int8(store, name, module)
    for name, stem in list(store.ending(".codes")):
        if f"{stem}.code" in store and f"{stem}.absmax" in store:
            with store.about(name, stem):
                _blockwise(store, name, stem)


def _int8(store: Store, name: str, module: str) -> None:
    weight = f"{module}.weight"
    codes = store.companion(name, weight, ("I8",))
    if len(codes.shape) != 2:
        raise BadInput(f"{codes} has shape {list(codes.shape)}, not that of a matrix")
    n_rows, n_cols = codes.shape
    scales = store.companion(weight, name, ("F32",), n_rows)
    layout = store.optional(f"{module}.weight_format")
    if layout is not None:
        number = int(layout.integers()[0]) if layout.n_values == 1 and layout.dtype == "U8" else -1
        if number:
            raise BadInput(
                f"{layout}: weights are laid out as {_FORMATS.get(number, 'an unknown format')}, only rows (0) can be read"
            )
    store.put(
        weight,
        Int8Rows(weight, codes.shape, "F32", "bnb-int8", [codes, scales], Grid(1, max(1, n_cols), max(1, n_rows))),
        layout,
    )


def _blockwise(store: Store, name: str, stem: str) -> None:
    codes = store.companion(name, name, ("U8",))
    n = prod(codes.shape)
    absmax = store.companion(name, f"{stem}.absmax", ("F32",))
    table = store.companion(name, f"{stem}.code", ("F32",), 256)
    blocks = [b for b in _BLOCKS if -(-n // b) == absmax.n_values]
    stated = store.scheme.integer("blocksize")
    if stated is not None:
        blocks = [b for b in blocks if b == stated]
    if not blocks:
        raise BadInput(f"{absmax} has {absmax.n_values} values, which no known block size gives for {n} codes")
    if len(blocks) > 1 and n > blocks[0]:
        raise BadInput(
            f"{absmax}: the blocks of {shown(name)} may have {' or '.join(map(str, blocks))} elements, and nothing says which"
        )
    store.put(name, BlockwiseRows(stem, codes.shape, _precision(store, absmax), (codes, absmax, table), blocks[0]))


def _precision(store: Store, absmax: Raw) -> str:
    """The type the values had, which this format does not state.

    The largest magnitude of a block is one of its values, so it is a number of the type. Scales of bfloat16 tensors went
    through arithmetic before, which leaves only some of them as they were; of float32 ones 1 in 65536 looks like bfloat16.
    """
    stated = _DTYPES.get(str(store.scheme.values.get("dtype")).removeprefix("torch."))
    if stated is not None:
        return stated
    scales = absmax.floats(0, absmax.n_values)
    with np.errstate(over="ignore"):
        if bool(np.all(scales.astype(np.float16) == scales)):
            return "F16"
    share = np.count_nonzero(scales.view(np.uint32) & 0xFFFF == 0) / max(1, len(scales))
    return "BF16" if share > 1 / 64 else "F32"


FORMAT = Format(
    find,
    methods=("bitsandbytes",),
    settings=BNB_SETTINGS,
    parts={r"\.SCB$": "an 8-bit weight, which is missing"},
    likely_parts={r"\.weight_format$": "an 8-bit weight, which is missing"},
)
