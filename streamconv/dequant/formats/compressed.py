"""compressed-tensors: packed and plain whole numbers. Its 8-bit floats are those of ``fp8``, its 4-bit floats those of ``fp4``.

``(q − zero) · scale``; the result has the type of the scales. Packed codes are stored as ``q + 2^(bits − 1)``, one stream a row;
zero points likewise, but packed along the rows of the matrix. Widths 3, 5, 6 and 7 have two layouts: codes that run across
words (now), and words whose top bits are unused (older versions); the number of words tells which.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from ...errors import BadInput
from ...rows import Bytes, Floats
from ...sources.naming import shown
from ..decoded_rows import Range, rows_of, whole
from ..format import LOST, Format
from ..grid_rows import IntRows, grid_for
from ..raw import Raw, frozen
from ..scheme import groups_of
from ..store import Store
from ..stream_rows import Groups, Packing, StreamRows
from .fp8 import block_of, describe

_SCALES = ("BF16", "F16", "F32")
#: bytes looked at to tell two layouts apart, and unused bits that must be zero in them to be sure
_LOOKED_AT, _SURE_BITS = 1 << 16, 64


class PackedRows(StreamRows):
    """A matrix of packed codes; ``parts`` are codes, scales, and what there is of zero points and index.

    Parameters
    ----------
    zeros : zero points, packed along the rows, or one I8 each; None when there are none
    zero_packing : of the packed ones
    """

    def __init__(
        self, name: str, shape: tuple[int, ...], parts: list[Raw], packing: Packing, groups: Groups,
        zeros: Raw | None, zero_packing: Packing | None,
    ) -> None:  # fmt: skip
        kind = f"group {groups.width}" if groups.n_groups > 1 else "per channel"
        encoding = f"packed-int{packing.bits} ({kind})"
        super().__init__(name, shape, parts[1].dtype, encoding, parts, packing, groups)
        self._zeros = zeros
        self._zero_packing = zero_packing

    def _packed(self, start: int, stop: int) -> tuple[Bytes, Floats, Floats]:
        row_bytes, n_groups = 4 * self._packing.words(self.n_cols), self._groups.n_groups
        stream = self.parts[0].bytes(start * row_bytes, stop * row_bytes).reshape(stop - start, row_bytes)
        scales = self.parts[1].floats(start * n_groups, stop * n_groups).reshape(-1, n_groups)
        return stream, self._zero_points(start, stop), scales

    def _zero_points(self, start: int, stop: int) -> Floats:
        """float32[stop - start, n_groups], with the offset of the stored codes."""
        offset, n_groups = np.float32(1 << (self._packing.bits - 1)), self._groups.n_groups
        if self._zeros is None:
            return frozen(np.full((stop - start, n_groups), offset, np.float32))
        if self._zero_packing is None:
            zeros = self._zeros.floats(start * n_groups, stop * n_groups).reshape(-1, n_groups)
            return frozen(np.add(zeros, offset))
        # The words of a column of zero points are 32 rows (or per_word) apart; take whole words.
        unit = self._zero_packing.per_word or 32
        first = start // unit
        a, b = (
            self._zero_packing.words(first * unit),
            self._zero_packing.words(min(-(-stop // unit) * unit, self.n_rows)),
        )
        words = self._zeros.bytes(4 * a * n_groups, 4 * b * n_groups).reshape(b - a, n_groups, 4)
        stream = frozen(words.transpose(1, 0, 2).reshape(n_groups, -1))
        levels = np.empty((n_groups, stop - start), np.uint8)
        self._zero_packing.unpack(stream, levels, start - first * unit)
        return frozen(levels.T.astype(np.float32))

    def _ranges(self, start: int, stop: int) -> Iterable[Range]:
        yield from (rows_of(part, self.n_rows, start, stop) for part in self.parts[:2])
        yield from map(whole, self.parts[2:])


def find(store: Store) -> None:
    """Recognise packed codes by ``weight_packed`` of 32-bit words, plain ones by a scale beside signed bytes.

    Raises
    ------
    BadInput : a part is missing or does not fit; names file and tensor
    """
    for name, module in list(store.ending(".weight_packed")):
        if store.tensors[name].dtype in ("I32", "U32"):
            with store.about(name, f"{module}.weight"):
                _packed(store, name, module)
    for name, module in list(store.ending(".weight_scale")):
        weight = f"{module}.weight"
        if weight in store and store.tensors[weight].dtype == "I8":
            with store.about(name, weight):
                _plain(store, name, module)


def _packed(store: Store, name: str, module: str) -> None:
    codes = store.companion(name, name)
    stated = store.companion(name, f"{module}.weight_shape", ("I64", "I32"), 2)
    n_rows, n_cols = (int(n) for n in stated.integers())
    if len(codes.shape) != 2 or codes.shape[0] != n_rows or n_cols < 1:
        raise BadInput(f"{codes} has shape {list(codes.shape)}, {stated.name} says [{n_rows}, {n_cols}]")
    scales = store.companion(name, f"{module}.weight_scale", _SCALES)
    if len(scales.shape) != 2 or scales.shape[0] != n_rows or not scales.shape[1]:
        raise BadInput(f"{scales} has shape {list(scales.shape)}, not a row for each of {n_rows} rows")
    arguments = store.scheme.weights_of(module)
    packing = _packing(codes, n_cols, store.scheme.integer("num_bits", arguments))
    n_groups = scales.shape[1]
    index = _index(store, name, module, arguments, n_groups)
    if index is not None and (index.dtype not in ("I32", "I64") or index.n_values != n_cols):
        raise BadInput(f"{index} is {index.dtype}{list(index.shape)}, not the group of each of {n_cols} columns")
    width = store.scheme.integer("group_size", arguments)
    if width is None or width <= 0 or -(-n_cols // width) != n_groups:
        width = -(-n_cols // n_groups)
        if index is None and n_cols % n_groups:
            raise BadInput(f"{scales} has {n_groups} groups, {n_cols} columns do not divide into these")
    zeros = store.optional(f"{module}.weight_zero_point")
    zero_packing = None if zeros is None else _zero_packing(zeros, packing.bits, n_rows, n_groups)
    groups = Groups(n_cols, n_groups, min(width, n_cols), index)
    parts = [codes, scales, *(part for part in (zeros, index) if part is not None)]
    rows = PackedRows(f"{module}.weight", (n_rows, n_cols), parts, packing, groups, zeros, zero_packing)
    store.put(name, rows, stated)


def _index(store: Store, name: str, module: str, arguments: Mapping[str, object], n_groups: int) -> Raw | None:
    """The group of each column; None where groups lie side by side."""
    is_turned = arguments.get("actorder") in (True, "group", "dynamic") and n_groups > 1
    index = f"{module}.weight_g_idx"
    return store.companion(name, index) if is_turned else store.optional(index)


def _layouts(bits: int) -> list[Packing]:
    return [Packing(bits), *([Packing(bits, 32 // bits)] if 32 % bits else [])]


def _packing(codes: Raw, n_cols: int, bits: int | None) -> Packing:
    widths = range(1, 9) if bits is None else (bits,)
    fitting = [p for b in widths if 1 <= b <= 8 for p in _layouts(b) if p.words(n_cols) == codes.shape[1]]
    if len({p.bits for p in fitting}) == 1:
        return fitting[0] if len(fitting) == 1 or _crosses_words(codes, fitting[0].bits) else fitting[1]
    said = f" of {bits} bits" if bits is not None else ""
    many = "in several ways" if fitting else "in no way"
    raise BadInput(f"{codes} has {codes.shape[1]} words per row, which {n_cols} codes{said} fill {many}")


def _crosses_words(codes: Raw, bits: int) -> bool:
    """Whether codes run across words, where the number of words allows both: then the top bits of words are in use."""
    words = np.frombuffer(codes.bytes(0, min(codes.n_bytes, _LOOKED_AT)).tobytes(), "<u4")
    if np.any(words >> np.uint32(32 - 32 % bits)):
        return True
    if len(words) * (32 % bits) < _SURE_BITS:
        raise BadInput(f"{codes}: {bits}-bit codes may run across its words or not, and it is too small to tell")
    return False


def _zero_packing(zeros: Raw, bits: int, n_rows: int, n_groups: int) -> Packing | None:
    """How zero points are packed; None when they are not."""
    if zeros.dtype == "I8" and zeros.shape == (n_rows, n_groups):
        return None
    fitting = [p for p in _layouts(bits) if zeros.shape == (p.words(n_rows), n_groups)]
    if not fitting or zeros.dtype not in ("I32", "U32"):
        raise BadInput(
            f"{zeros} is {zeros.dtype}{list(zeros.shape)}, which does not fit {n_rows} rows and {n_groups} groups"
        )
    return fitting[0]


def _plain(store: Store, name: str, module: str) -> None:
    weight = f"{module}.weight"
    codes = store.companion(name, weight, ("I8",))
    scales = store.companion(weight, name, _SCALES)
    arguments = store.scheme.weights_of(module)
    block = block_of({}, arguments) if "block_structure" in arguments else None
    grid = grid_for(codes.shape, scales.shape, block)
    if len(scales.shape) > 1:
        _index(store, weight, module, arguments, scales.shape[1])
    if grid is None:
        raise BadInput(
            f"{scales} has shape {list(scales.shape)}, which does not fit {shown(weight)} of shape {list(codes.shape)}"
        )
    zeros = store.optional(f"{module}.weight_zero_point")
    if zeros is not None and (zeros.dtype != "I8" or zeros.n_values != scales.n_values):
        raise BadInput(f"{zeros} is {zeros.dtype}{list(zeros.shape)}, not an I8 for each of {scales.n_values} scales")
    parts = [codes, scales, *([zeros] if zeros is not None else [])]
    store.put(weight, IntRows(weight, codes.shape, scales.dtype, f"int8 ({describe(grid, codes.shape)})", parts, grid))


#: ``format`` of the whole section or of a group, and of its ``sparsity_config``
_KNOWN = (
    "dense", "pack-quantized", "int-quantized", "float-quantized", "naive-quantized", "nvfp4-pack-quantized",
    "mxfp4-pack-quantized", "mxfp8-quantized", "mixed-precision",
)  # fmt: skip
_SPARSE = ("dense", "sparse-24-bitmask")


def check(store: Store) -> None:
    """Refuse formats that cannot be decoded.

    Raises
    ------
    BadInput : a format, by its name
    """
    values = store.scheme.values
    sparsity = values.get("sparsity_config")
    for holder, known in (
        (values, _KNOWN),
        *((group, _KNOWN) for group in groups_of(values)),
        *([(sparsity, _SPARSE)] if isinstance(sparsity, Mapping) else []),
    ):
        name = holder.get("format")
        if name is not None and name not in known:
            raise BadInput(
                f"{store.path}: compressed-tensors format {shown(str(name))} cannot be decoded",
                f"Supported: {', '.join(known)}.",
            )


FORMAT = Format(
    find,
    methods=("compressed-tensors",),
    likely_parts={r"\.weight_(zero_point|shape|packed|g_idx)$": LOST},
    settings=("config_groups", "format", "quantization_status", "global_compression_ratio", "sparsity_config"),
    check=check,
)
