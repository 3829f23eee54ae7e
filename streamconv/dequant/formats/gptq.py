"""GPTQ with 2, 3, 4 or 8 bits, in the order of the inputs or by activation order (``g_idx``).

Codes are packed along the inputs, zero points along the outputs, both as streams without gaps:
``w[n, k] = scales[g, n] · (q[k, n] − z[g, n])`` with ``g = g_idx[k]``. Version 1 stores the zero point minus one, so a stored
value of all ones means 0; version 2 stores it as it is. With float16 scales every product is exact in float32.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...errors import BadInput
from ...kernels import load
from ...sources.naming import shown
from ..format import Format
from ..raw import Raw, frozen
from ..scheme import first_of
from ..store import Store
from ..stream_rows import Groups, Packing, Slab, TransposedRows

_BITS = (2, 3, 4, 8)
_FORMATS = {"gptq": 1, "gptq_v2": 2}
_SCALES = ("F16", "BF16", "F32")


class GptqRows(TransposedRows):
    """A matrix [outputs, inputs]; ``parts`` are codes, zero points, scales and perhaps the index."""

    def __init__(
        self, name: str, parts: list[Raw], packing: Packing, groups: Groups, version: int, act_order: bool
    ) -> None:
        order = ", act-order" if act_order else ""
        shape = parts[0].shape[1], groups.n_cols
        encoding = f"gptq-{packing.bits}bit (v{version}, {groups.n_groups} groups{order})"
        super().__init__(name, shape, "F32", encoding, parts, packing, groups)
        self._version = version

    def _make_slab(self, start: int, stop: int) -> Slab:
        codes, zeros = self.parts[0], self.parts[1]
        words = codes.columns(4 * self.n_rows, 4 * start, 4 * stop)
        stream = np.empty((stop - start, 4 * len(words)), np.uint8)
        load(".dequant.kernels.bitstream").turn_words(words, stream)
        # The last slab may begin and end anywhere in its words, which are 32 codes in ``bits`` words from ``start`` on.
        row_bytes = 4 * self._packing.words(self.n_rows)
        first, last = start * self._packing.bits // 8, min(row_bytes, -(-stop // 32) * 4 * self._packing.bits)
        levels = np.empty((self._groups.n_groups, stop - start), np.uint8)
        self._packing.unpack(frozen(zeros.columns(row_bytes, first, last)), levels)
        if self._version == 1:
            levels = (levels + np.uint8(1)) & np.uint8((1 << self._packing.bits) - 1)
        return Slab(start, stop, frozen(stream), frozen(levels.T.astype(np.float32)), self._group_scales(start, stop))


def find(store: Store) -> None:
    """Recognise weights by ``qweight`` with scales as wide as it.

    Raises
    ------
    BadInput : a part is missing or does not fit, or the layout is not known; names file and tensor
    """
    if store.scheme.method == "awq":
        return
    for name, module in list(store.ending(".qweight")):
        with store.about(name, f"{module}.weight"):
            _put(store, name, module)


def _put(store: Store, name: str, module: str) -> None:
    codes = store.companion(name, name, ("I32", "U32"))
    scales = store.companion(name, f"{module}.scales", _SCALES)
    zeros = store.companion(name, f"{module}.qzeros", ("I32", "U32"))
    if len(codes.shape) != 2 or len(scales.shape) != 2 or scales.shape[1] != codes.shape[1]:
        raise BadInput(
            f"{scales} has shape {list(scales.shape)}, {shown(name)} {list(codes.shape)}: not as many columns"
        )
    n_groups, n_rows = scales.shape
    if len(zeros.shape) != 2 or zeros.shape[0] != n_groups:
        raise BadInput(f"{zeros} has shape {list(zeros.shape)}, not {n_groups} groups")
    stated = first_of(store.scheme.overrides(module), store.scheme.values)
    packing = _packing(store, module, n_rows, zeros, store.scheme.integer("bits", stated))
    if codes.shape[0] * 32 % packing.bits:
        raise BadInput(f"{codes} has {codes.shape[0]} rows of words, not a whole number of {packing.bits}-bit codes")
    n_cols = codes.shape[0] * 32 // packing.bits
    is_turned = stated.get("desc_act") and not stated.get("static_groups") and n_groups > 1
    index = store.companion(name, f"{module}.g_idx") if is_turned else store.optional(f"{module}.g_idx")
    width = store.scheme.integer("group_size", stated)
    if width is None or width == -1:
        width = -(-n_cols // n_groups) if n_groups else 1
    if index is None and (width <= 0 or -(-n_cols // width) != n_groups):
        raise BadInput(
            f"{scales} has {n_groups} groups, {n_cols} inputs in groups of {width} give another number, and there is no g_idx"
        )
    if index is not None and (index.dtype not in ("I32", "I64") or index.n_values != n_cols):
        raise BadInput(f"{index} is {index.dtype}{list(index.shape)}, not the group of each of {n_cols} inputs")
    groups = Groups(n_cols, n_groups, max(1, min(width, n_cols)), index)
    parts = [codes, zeros, scales, *([index] if index is not None else [])]
    act_order = bool(stated.get("desc_act")) and index is not None
    store.put(name, GptqRows(f"{module}.weight", parts, packing, groups, _version(store, stated), act_order))


def _packing(store: Store, module: str, n_rows: int, zeros: Raw, stated: int | None) -> Packing:
    """The width of the codes as the zero points show it, which are packed alike."""
    fitting = [b for b in _BITS if Packing(b).words(n_rows) == zeros.shape[1]]
    if stated is not None:
        fitting = [b for b in fitting if b == stated]
    if len(fitting) != 1:
        said = f" and {stated} bits" if stated is not None else ""
        raise BadInput(
            f"{zeros} has {zeros.shape[1]} words per row, which does not fit {n_rows} outputs{said} of {shown(module)}"
        )
    return Packing(fitting[0])


def check(store: Store) -> None:
    """Refuse layouts other than GPTQ's own two, such as marlin's.

    Raises
    ------
    BadInput : another layout, by its name
    """
    _version(store, store.scheme.values)


def _version(store: Store, stated: Mapping[str, object]) -> int:
    name = (
        "marlin"
        if stated.get("is_marlin_format")
        else stated.get("checkpoint_format") or stated.get("format") or "gptq"
    )
    if name not in _FORMATS:
        raise BadInput(
            f"{store.path}: GPTQ weights laid out as {shown(str(name))} cannot be decoded",
            f"Supported: {', '.join(_FORMATS)}.",
        )
    return _FORMATS[str(name)]


FORMAT = Format(
    find,
    methods=("gptq",),
    parts={r"\.(qzeros|g_idx)$": "a packed weight, whose qweight is missing"},
    likely_parts={r"\.(B|B_24|B_meta|s|workspace)$": "a weight in marlin's layout, which cannot be decoded"},
    settings=(
        "bits", "group_size", "sym", "desc_act", "static_groups", "true_sequential", "checkpoint_format", "format",
        "is_marlin_format", "dynamic", "lm_head", "damp_percent", "damp_auto_increment", "act_group_aware", "hyb_act", "mse",
        "pack_dtype", "pack_impl", "cache_block_outputs", "use_cuda_fp16", "v2", "gptaq", "foem", "hessian", "fallback", "failsafe",
        "fail_safe", "parallel_packing", "mock_quantization", "quantizer", "process", "vram_strategy", "auto_forward_data_parallel",
    ),
    check=check,
)  # fmt: skip
