"""MLX: whole numbers of 2 to 8 bits with a scale and a bias for each group, and its modes with floats of four and eight bits.

``affine``: ``code · scale + bias``, codes as one stream of bits a row, in words of 32 bits. ``mxfp4``, ``mxfp8``: floats whose
groups of 32 share a power of two. ``nvfp4``: four-bit floats whose groups of 16 share an 8-bit float, which is stored as bytes.
Sizes are those of config.json, where a module may have its own by name.

Source: mlx/backend/cpu/quantized.cpp (0.30) for the packing, mlx_lm/utils.py for config.json.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from ...errors import BadInput
from ...kernels import load
from ...rows import Floats
from ...sources.naming import shown
from ..decoded_rows import DecodedRows, Range, rows_of
from ..format import Format
from ..grid_rows import Float8Rows, Grid
from ..nibble_rows import E2M1, NibbleRows
from ..raw import Raw, frozen
from ..settings import check_turning
from ..store import Store
from ..stream_rows import Packing
from .fp4 import Mxfp4Rows

_SCALES = ("F32", "F16", "BF16")
_BITS = (2, 3, 4, 5, 6, 8)
#: bits and columns of a group of the modes that have a fixed size
_MODES = {"affine": None, "mxfp4": (4, 32), "mxfp8": (8, 32), "nvfp4": (4, 16)}
_HINT = "Use the checkpoint that MLX quantized."


class AffineRows(DecodedRows):
    """``parts`` are codes, scales and biases, the latter two float[n_rows, n_groups]."""

    kernels = (".dequant.kernels.bitstream", ".dequant.kernels.levels", ".kernels.rounding")

    def __init__(self, name: str, shape: tuple[int, ...], parts: list[Raw], packing: Packing, width: int) -> None:
        super().__init__(name, shape, parts[1].dtype, f"mlx-{packing.bits}bit (group {width})", parts)
        self._packing = packing
        self._width = width

    def _decode(self, start: int, stop: int, out: Floats) -> None:
        stream, scales, biases = self._ranges(start, stop)
        codes = stream[0].bytes(*stream[1:]).reshape(stop - start, -1)
        levels = np.empty(out.shape, np.uint8)
        self._packing.unpack(codes, levels)
        factors, offsets = (
            part.floats(a // part.itemsize, b // part.itemsize).reshape(stop - start, -1)
            for part, a, b in (scales, biases)
        )
        load(".dequant.kernels.levels").affine(frozen(levels), factors, offsets, self._width, out)

    def _ranges(self, start: int, stop: int) -> Iterable[Range]:
        return (rows_of(part, self.n_rows, start, stop) for part in self.parts)


class ByteScaleRows(NibbleRows):
    """NVFP4 whose scales are 8-bit floats stored as bytes; ``parts`` are codes and scales."""

    def __init__(self, name: str, shape: tuple[int, ...], parts: list[Raw]) -> None:
        super().__init__(name, shape, "BF16", "mlx-nvfp4", parts, table=E2M1, high_first=False, block=16)

    def _scales(self, start: int, stop: int) -> Floats:
        return self.parts[1].floats(start, stop, "F8_E4M3")


def find(store: Store) -> None:
    """Recognise words with ``scales`` beside them, which have ``biases`` or are of another mode.

    Raises
    ------
    BadInput : sizes that config.json does not say, or that do not fit; names file and tensor
    """
    for name, module in list(store.ending(".weight")):
        if store.tensors[name].dtype == "U32" and f"{module}.scales" in store:
            with store.about(name, name):
                _put(store, name, module)


def _put(store: Store, name: str, module: str) -> None:
    codes, scales = store.raw(name), store.raw(f"{module}.scales")
    stated = _stated(store, module)
    mode = stated.get("mode") or "affine"
    if not isinstance(mode, str) or mode not in _MODES:
        raise BadInput(
            f"{codes}: MLX's mode {shown(str(mode))} cannot be decoded", f"Supported: {', '.join(_MODES)}. {_HINT}"
        )
    bits, width = _MODES[mode] or (store.scheme.integer("bits", stated), store.scheme.integer("group_size", stated))
    if bits not in _BITS or width is None or width < 1:
        raise BadInput(
            f"{codes} is quantized by MLX, and config.json does not say with how many bits and in groups of which size",
            _HINT,
        )
    n_cols = codes.shape[-1] * 32 // bits if codes.shape else 0
    if (
        len(codes.shape) < 2
        or scales.shape != (*codes.shape[:-1], n_cols // width)
        or codes.shape[-1] * 32 != n_cols * bits
        or (n_cols % width)
    ):
        raise BadInput(
            f"{scales} has shape {list(scales.shape)}, which does not fit {shown(name)} of shape {list(codes.shape)} with"
            f" {bits} bits and groups of {width}, as MLX's section of config.json states",
            _HINT,
        )
    if f"{module}.global_scale" in store:
        raise BadInput(f"{codes} is quantized by MLX with a global_scale, which cannot be decoded", _HINT)
    shape = (*codes.shape[:-1], n_cols)
    store.put(name, _rows(store, name, shape, mode, codes, Packing(bits), width))


def _rows(
    store: Store, name: str, shape: tuple[int, ...], mode: str, codes: Raw, packing: Packing, width: int
) -> DecodedRows:
    stem = name.removesuffix("weight")
    scales = store.companion(name, f"{stem}scales")
    if scales.dtype not in (_SCALES if mode == "affine" else ("U8",)):
        raise BadInput(f"{scales} has type {scales.dtype}, which is not that of MLX's mode {mode}", _HINT)
    if mode == "affine":
        biases = store.companion(name, f"{stem}biases", (scales.dtype,))
        if biases.shape != scales.shape:
            raise BadInput(f"{biases} has shape {list(biases.shape)}, the scales {list(scales.shape)}")
        return AffineRows(name, shape, [codes, scales, biases], packing, width)
    if f"{stem}biases" in store:
        raise BadInput(f"{codes} has biases, which MLX's mode {mode} does not have", _HINT)
    if mode == "mxfp8":
        n_rows = codes.n_values * 4 // shape[-1]
        return Float8Words(name, shape, "BF16", "mlx-mxfp8", [codes, scales], Grid(1, width, max(1, n_rows)), "F8_E8M0")
    return Mxfp4Rows(name, shape, [codes, scales]) if mode == "mxfp4" else ByteScaleRows(name, shape, [codes, scales])


class Float8Words(Float8Rows):
    """8-bit floats, four a word."""

    code_type = "F8_E4M3"


def _stated(store: Store, module: str) -> Mapping[str, object]:
    """What config.json says of a module: its own sizes, else those of all."""
    values = store.scheme.values if store.scheme.method == "mlx" else {}
    own = values.get(module)
    return own if isinstance(own, Mapping) and own else values


def check(store: Store) -> None:
    """Refuse keys that are neither sizes nor modules.

    Raises
    ------
    BadInput : such a key, by its name
    """
    if store.scheme.said == "auto-round":
        check_turning(store.scheme, store.path)
        return
    for key, value in store.scheme.values.items():
        if key not in _KEYS and not isinstance(value, (Mapping, bool)) and value is not None:
            raise BadInput(
                f"{store.path}: quantization: {shown(key)} is {shown(str(value))}, which is not understood: this checkpoint is"
                " quantized by MLX in a way that cannot be decoded",
                _HINT,
            )
        for inner in value if isinstance(value, Mapping) else ():
            if inner not in _KEYS:
                raise BadInput(
                    f"{store.path}: quantization: {shown(key)}: {shown(inner)} is not understood (an MLX checkpoint)",
                    _HINT,
                )


_KEYS = ("quant_method", "bits", "group_size", "mode")
FORMAT = Format(
    find,
    methods=("mlx",),
    likely_parts={r"\.(scales|biases)$": "a weight quantized by MLX, which is missing or of another type"},
    check=check,
)
