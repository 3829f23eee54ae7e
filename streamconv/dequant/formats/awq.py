"""AWQ, version ``gemm``: four bits, groups of neighbouring inputs.

Eight outputs share a 32-bit word in the order 0 2 4 6 1 3 5 7: ``w[n, k] = scales[k // group, n] · (q[k, n] − z[k // group, n])``.
With float16 scales every product is exact in float32.
"""

from __future__ import annotations

import numpy as np

from ...errors import BadInput
from ...kernels import load
from ...sources.naming import shown
from ..format import Format
from ..raw import Raw, frozen
from ..store import Store
from ..stream_rows import Groups, Packing, Slab, TransposedRows

_FOUR = Packing(4)
_SCALES = ("F16", "BF16", "F32")
#: column of a word -> the place of its four bits
_PLACES = np.array([0, 4, 1, 5, 2, 6, 3, 7])


class AwqRows(TransposedRows):
    """A matrix [outputs, inputs]; ``parts`` are codes, zero points and scales."""

    def __init__(self, name: str, parts: list[Raw], groups: Groups) -> None:
        shape = parts[2].shape[1], groups.n_cols
        super().__init__(name, shape, "F32", f"awq-4bit (group {groups.width})", parts, _FOUR, groups)

    def _make_slab(self, start: int, stop: int) -> Slab:
        codes, zeros = self.parts[0], self.parts[1]
        words = codes.columns(self.n_rows // 2, start // 2, stop // 2)
        stream = np.empty((stop - start, self.n_cols // 2), np.uint8)
        load(".dequant.kernels.bitstream").turn_interleaved(words, stream)
        packed = frozen(zeros.columns(self.n_rows // 2, start // 2, stop // 2))
        levels = np.empty((len(packed), stop - start), np.uint8)
        _FOUR.unpack(packed, levels)
        levels = levels.reshape(len(packed), -1, 8)[:, :, _PLACES].reshape(len(packed), -1)
        return Slab(start, stop, frozen(stream), frozen(levels.T.astype(np.float32)), self._group_scales(start, stop))


def find(store: Store) -> None:
    """Recognise weights by ``qweight`` where config.json says AWQ, whose shapes then have to fit.

    Raises
    ------
    BadInput : a part is missing or does not fit, or the layout is another; names file and tensor
    """
    if store.scheme.method != "awq":
        return
    for name, module in list(store.ending(".qweight")):
        with store.about(name, f"{module}.weight"):
            _put(store, name, module)


def check(store: Store) -> None:
    """Refuse layouts, widths and codes without zero points that cannot be decoded.

    Raises
    ------
    BadInput : what it is
    """
    values = store.scheme.values
    version = str(values.get("version") or values.get("checkpoint_format") or values.get("format") or "gemm").lower()
    if version != "gemm":
        raise BadInput(f"{store.path}: AWQ weights laid out as {shown(version)} cannot be decoded", "Supported: gemm.")
    if store.scheme.integer("bits") not in (None, 4):
        raise BadInput(f"{store.path}: AWQ weights of {values['bits']} bits cannot be decoded", "Supported: 4 bits.")
    if values.get("zero_point") is False:
        raise BadInput(f"{store.path}: AWQ weights without zero points cannot be decoded")


def _put(store: Store, name: str, module: str) -> None:
    bits = store.scheme.overrides(module).get("bits")
    if bits not in (None, 4):
        raise BadInput(
            f"{store.where(name)}: AWQ weights of {shown(str(bits))} bits ({shown(module)}) cannot be decoded"
        )
    codes = store.companion(name, name, ("I32", "U32"))
    scales = store.companion(name, f"{module}.scales", _SCALES)
    zeros = store.companion(name, f"{module}.qzeros", ("I32", "U32"))
    if len(codes.shape) != 2 or len(scales.shape) != 2 or scales.shape[1] != 8 * codes.shape[1]:
        raise BadInput(
            f"{scales} has shape {list(scales.shape)}, {shown(name)} {list(codes.shape)}: not 8 columns per word"
        )
    n_cols, (n_groups, n_rows) = codes.shape[0], scales.shape
    if zeros.shape != (n_groups, n_rows // 8):
        raise BadInput(f"{zeros} has shape {list(zeros.shape)}, not [{n_groups}, {n_rows // 8}]")
    stated = store.scheme.integer("group_size")
    if stated is None:
        stated = store.scheme.integer("q_group_size")
    width = n_cols if stated == -1 else stated if stated is not None else -(-n_cols // max(1, n_groups))
    if width <= 0 or -(-n_cols // width) != n_groups or n_cols % 2:
        raise BadInput(f"{scales} has {n_groups} groups, which does not fit {n_cols} inputs in groups of {width}")
    store.put(name, AwqRows(f"{module}.weight", [codes, zeros, scales], Groups(n_cols, n_groups, min(width, n_cols))))


FORMAT = Format(
    find,
    methods=("awq",),
    settings=(
        "bits", "w_bit", "group_size", "q_group_size", "zero_point", "version", "format", "checkpoint_format", "sym", "desc_act",
        "do_fuse", "fuse_max_seq_len", "modules_to_fuse", "lm_head", "pack_dtype", "dynamic", "true_sequential",
    ),
    check=check,
)  # fmt: skip
