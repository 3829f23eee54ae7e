"""NVIDIA ModelOpt: its sections of config.json, and whole numbers of four bits.

Its 8-bit floats are those of ``fp8``, its 4-bit floats those of ``fp4``, its 8-bit whole numbers those of ``compressed``; factors
of the inputs (``pre_quant_scale``) are folded into whichever it is (``column_rows``). Whole numbers of four bits are signed, two
rows of the matrix in one of bytes, the even row in the low half: ``code · scale of its group``.

Source: modelopt/torch/export/quant_utils.py (0.40).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from ...errors import BadInput
from ...kernels import load
from ...rows import Floats
from ...sources.naming import shown
from ..decoded_rows import DecodedRows, Range, numbers
from ..format import LOST, Format
from ..raw import Raw, frozen
from ..scheme import groups_of
from ..store import Store

_SCALES = ("F32", "F16", "BF16")
_SIGN = np.uint8(8)
#: ``quant_algo`` that can be decoded
_ALGORITHMS = (
    "FP8", "FP8_PER_CHANNEL_PER_TOKEN", "FP8_PC_PT", "FP8_PB_WO", "FP8_PB_REAL", "MXFP8", "NVFP4", "W4A16_NVFP4", "NVFP4_AWQ",
    "W4A8_NVFP4_FP8", "MXFP4", "W4A8_MXFP4_FP8", "W8A16", "W8A8_SQ_PER_CHANNEL", "W4A16_AWQ", "MIXED_PRECISION",
)  # fmt: skip


class Int4Rows(DecodedRows):
    """``parts`` are codes uint8[n_rows / 2, n_cols] and scales [n_rows, n_groups]."""

    kernels = (".dequant.kernels.levels", ".kernels.rounding")

    def __init__(self, name: str, parts: list[Raw]) -> None:
        codes, scales = parts
        self._width = codes.shape[1] // scales.shape[1]
        super().__init__(name, scales.shape[:1] + codes.shape[1:], "F32", f"int4 (group {self._width})", parts)

    def _decode(self, start: int, stop: int, out: Floats) -> None:
        first, last = start // 2, -(-stop // 2)
        packed = self.parts[0].bytes(first * self.n_cols, last * self.n_cols).reshape(-1, 1, self.n_cols)
        levels = np.concatenate([packed & np.uint8(15), packed >> np.uint8(4)], axis=1).reshape(-1, self.n_cols)
        a, b = self._scale_range(start, stop)
        scales = self.parts[1].floats(a, b).reshape(stop - start, -1)
        zeros = frozen(np.full(scales.shape, _SIGN, np.float32))
        own = np.arange(stop - start, dtype=np.int64)
        codes = frozen(levels[start - 2 * first :][: stop - start])
        load(".dequant.kernels.levels").scaled(codes, _SIGN, zeros, scales, own, self._width, np.float32(1), out)

    def _scale_range(self, start: int, stop: int) -> tuple[int, int]:
        n_groups = self.parts[1].shape[1]
        return start * n_groups, stop * n_groups

    def _ranges(self, start: int, stop: int) -> Iterable[Range]:
        yield numbers(self.parts[0], start // 2 * self.n_cols, -(-stop // 2) * self.n_cols)
        yield numbers(self.parts[1], *self._scale_range(start, stop))


def find(store: Store) -> None:
    """Recognise whole numbers of four bits by their scales, which are floats for groups of twice as many rows.

    Raises
    ------
    BadInput : scales that do not fit; names file and tensor
    """
    if store.scheme.method != "modelopt":
        return
    for name, module in list(store.ending(".weight")):
        scale = f"{module}.weight_scale"
        if store.tensors[name].dtype == "U8" and scale in store and store.tensors[scale].dtype in _SCALES:
            with store.about(name, name):
                _put(store, name, module)


def _put(store: Store, name: str, module: str) -> None:
    codes, scales = store.raw(name), store.companion(name, f"{module}.weight_scale", _SCALES)
    if f"{module}.weight_scale_2" in store:
        raise BadInput(f"{codes} has a weight_scale_2 (W4A8_AWQ), which cannot be decoded")
    fits = len(codes.shape) == 2 == len(scales.shape) and scales.shape[0] == 2 * codes.shape[0]
    if not fits or not scales.shape[1] or codes.shape[1] % scales.shape[1]:
        raise BadInput(
            f"{scales} has shape {list(scales.shape)}, which does not fit {shown(name)} of shape {list(codes.shape)}"
        )
    store.put(name, Int4Rows(name, [codes, scales]))


def check(store: Store) -> None:
    """Refuse algorithms whose weights cannot be decoded.

    Raises
    ------
    BadInput : an algorithm, by its name
    """
    values = store.scheme.values
    for holder in _holders(values):
        algorithm = holder.get("quant_algo")
        if algorithm is not None and str(algorithm).upper() not in _ALGORITHMS:
            raise BadInput(
                f"{store.path}: quantization_config: quant_algo {shown(str(algorithm))} cannot be decoded",
                f"Supported: {', '.join(_ALGORITHMS)}.",
            )
        for key in ("has_zero_point", "lora_rank"):
            if holder.get(key):
                raise BadInput(f"{store.path}: quantization_config: weights with {key} cannot be decoded")


def _holders(values: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
    """Whatever may name an algorithm."""
    yield values
    yield from groups_of(values)
    layers = values.get("quantized_layers")
    for layer in layers.values() if isinstance(layers, Mapping) else ():
        if isinstance(layer, Mapping):
            yield layer


FORMAT = Format(
    find,
    methods=("modelopt",),
    parts={r"\.svdquant_lora_[ab]$": "a weight of SVDQuant, which cannot be decoded"},
    likely_parts={r"\.pre_quant_scale$": LOST},
    settings=(
        "quant_algo", "config_groups", "quantized_layers", "group_size", "has_zero_point", "pre_quant_scale", "awq_block_size",
        "weight_block_size", "lora_rank", "smoothquant_val",
    ),
    check=check,
)  # fmt: skip
