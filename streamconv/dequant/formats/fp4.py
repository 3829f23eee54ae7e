"""4-bit floats (E2M1) with a scale per group: MXFP4 of gpt-oss, DeepSeek V4 and others, NVFP4 of compressed-tensors and ModelOpt.

Two codes a byte, low half first. MXFP4: 32 values share a power of two. NVFP4: 16 values share an 8-bit float, which one float32
of the whole tensor divides (compressed-tensors) or multiplies (ModelOpt); the result is rounded to float32 before it is multiplied.

MXFP4 of gpt-oss is stored as [experts, outputs, groups, 16] and stays in this orientation, that of GGUF: values and scales of a
GGUF block are the same, only the halves of bytes change places, so ``native`` copies without loss. So it is with NVFP4, whose
float32 of the whole tensor goes into a tensor of its own there.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from math import prod

import numpy as np

from ...errors import BadInput
from ...kernels import load
from ...kit import Function, Mapped, Reshaped
from ...rows import Bytes, Floats, Rows
from ...sources.naming import shown
from ..decoded_rows import DecodedRows, Range
from ..format import LOST, Format
from ..nibble_rows import E2M1, PRECISION, NibbleRows, pairs
from ..raw import Raw, frozen
from ..store import Store
from ..stream_rows import widened

_MX, _NV = 32, 16
#: values of a GGUF block of NVFP4
_BLOCK = 64
_INVERSE = Function("inverse", 1, lambda x: np.reciprocal(x))
#: types of scales: powers of two for MXFP4, 8-bit floats for NVFP4
_BYTES = ("U8", "F8_E8M0", "F8_E4M3")
_POWERS = _BYTES[:2]


class Mxfp4Rows(NibbleRows):
    """``parts`` are codes and exponents (2^(byte − 127); 255 is NaN). Every product is a number of bfloat16."""

    exact = True

    def __init__(self, name: str, shape: tuple[int, ...], parts: list[Raw]) -> None:
        super().__init__(name, shape, "BF16", "mxfp4", parts, table=E2M1, high_first=False, block=_MX)

    def _scales(self, start: int, stop: int) -> Floats:
        return self.parts[1].floats(start, stop, "F8_E8M0")

    def native(self, kind: str, start: int, stop: int) -> Bytes | None:
        """Rows ``start..stop`` as blocks of the GGUF type of this name."""
        if kind != "MXFP4":
            return None
        n = self.n_cols // _MX
        out = np.empty((stop - start, n * 17), np.uint8)
        if stop > start:
            codes = self.parts[0].bytes(start * n * 16, stop * n * 16).reshape(-1, 16)
            scales = self.parts[1].bytes(start * n, stop * n)
            load(".dequant.kernels.nibbles").ggml_order(codes, scales, out.reshape(-1, 17))
        return out


class ExpertRows(Mxfp4Rows):
    """Experts of gpt-oss: [experts, outputs, inputs]."""

    def as_saved(self) -> DecodedRows:
        """[experts, inputs, outputs], as transformers has them when they are not quantized."""
        return TurnedExpertRows(self)


class TurnedExpertRows(DecodedRows):
    """The same with inputs for rows; 32 of them are a column of groups, which is decoded for all outputs at once."""

    kernels = (".dequant.kernels.nibbles",)

    def __init__(self, experts: ExpertRows) -> None:
        *outer, n_outputs, n_inputs = experts.shape
        super().__init__(experts.name, (*outer, n_inputs, n_outputs), experts.dtype, experts.encoding, experts.parts)
        self._pairs = pairs(E2M1, False)

    def _step(self) -> int:
        return _MX

    def _round(self, out: Floats) -> None:
        """Every product is a number of bfloat16."""

    def _decode(self, start: int, stop: int, out: Floats) -> None:
        n_inputs, n_groups = self.shape[-2], self.shape[-2] // _MX
        at = start
        while at < stop:
            expert, row = divmod(at, n_inputs)
            group = row // _MX
            end = min(stop, at - row % _MX + _MX)
            codes, scales = (
                part.bytes(
                    expert * self.n_cols * n_groups * size, (expert + 1) * self.n_cols * n_groups * size
                ).reshape(self.n_cols, n_groups, size)[:, group]
                for part, size in zip(self.parts, (_MX // 2, 1), strict=True)
            )
            exponents = frozen(widened(frozen(scales), "F8_E8M0").reshape(-1))
            column = np.empty((self.n_cols, _MX), np.float32)
            load(".dequant.kernels.nibbles").expand(
                frozen(codes).reshape(-1), self._pairs, exponents, _MX, 0, PRECISION["F32"], column.reshape(-1)
            )
            out[at - start : end - start] = column[:, row % _MX : row % _MX + end - at].T
            at = end

    def _ranges(self, start: int, stop: int) -> Iterable[Range]:
        """Whole experts."""
        n = self.shape[-2]
        for part in self.parts:
            expert_bytes = part.n_bytes // (self.n_rows // n)
            yield part, start // n * expert_bytes, -(-stop // n) * expert_bytes


class Nvfp4Rows(NibbleRows):
    """``parts`` are codes, scales of groups, and a float32 of the whole tensor or of each slice.

    Parameters
    ----------
    dtype : that of the result
    divides : whether the float32 divides the scales, as that of compressed-tensors does; ModelOpt's multiplies them
    """

    def __init__(self, name: str, shape: tuple[int, ...], parts: list[Raw], dtype: str, divides: bool) -> None:
        super().__init__(name, shape, dtype, "nvfp4 (group 16)", parts, table=E2M1, high_first=False, block=_NV)
        self._divides = divides

    @cached_property
    def beside(self) -> Rows:
        """What its GGUF blocks have to be multiplied by, which runtimes find in a tensor of its own: float32[1]."""
        stored = Reshaped(self.parts[2].rows, (1,))
        return Mapped(stored, _INVERSE) if self._divides else stored

    def native(self, kind: str, start: int, stop: int) -> Bytes | None:
        """Rows ``start..stop`` as blocks of the GGUF type of this name, without the float32 of the whole tensor; see ``beside``."""
        if kind != "NVFP4" or self.n_cols % _BLOCK or self.parts[2].n_values != 1:
            return None
        n = self.n_cols // _NV
        scales = self.parts[1].bytes(start * n, stop * n)
        if np.any(scales & np.uint8(0x80)):
            raise BadInput(f"{self.parts[1]} contains a negative scale, which NVFP4 blocks in GGUF cannot have")
        pairs = self.parts[0].bytes(start * n * 8, stop * n * 8).reshape(-1, 8)
        codes = np.stack([pairs & np.uint8(15), pairs >> np.uint8(4)], axis=-1).reshape(-1, 2, 8)
        nibbles = codes[:, 0] | codes[:, 1] << np.uint8(4)
        blocks = np.concatenate([scales.reshape(-1, _BLOCK // _NV), nibbles.reshape(-1, _BLOCK // 2)], axis=1)
        return blocks.reshape(stop - start, n // 4 * 36)

    def _scales(self, start: int, stop: int) -> Floats:
        whole = self.parts[2].floats(0, self.parts[2].n_values)
        if len(whole) > 1:
            whole = whole[np.arange(start, stop) // (self.n_rows * self.n_cols // _NV // len(whole))]
        scales = self.parts[1].floats(start, stop)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return frozen(np.divide(scales, whole) if self._divides else np.multiply(scales, whole))


def find(store: Store) -> None:
    """Recognise gpt-oss by ``_blocks``, compressed-tensors by ``weight_packed`` of bytes, DeepSeek V4 by ``scale`` beside bytes.

    Raises
    ------
    BadInput : a part is missing or does not fit; names file and tensor
    """
    for name, stem in list(store.ending("_blocks")):
        if store.tensors[name].dtype == "U8" and (f"{stem}_scales" in store or store.scheme.method == "mxfp4"):
            with store.about(name, stem):
                _gpt_oss(store, name, stem)
    for name, module in list(store.ending(".weight_packed")):
        if store.tensors[name].dtype == "U8":
            with store.about(name, f"{module}.weight"):
                _packed(store, name, module)
    for name, module in list(store.ending(".weight")):
        scale = f"{module}.weight_scale"
        if store.tensors[name].dtype == "U8" and scale in store and store.tensors[scale].dtype in _BYTES:
            with store.about(name, name):
                _modelopt(store, name, module)
    for name, module in list(store.ending(".weight")):
        scale = f"{module}.scale"
        if store.tensors[name].dtype in ("I8", "U8") and scale in store and store.tensors[scale].dtype in _POWERS:
            with store.about(name, name):
                codes, scales, shape = _groups(store, name, scale)
                store.put(name, Mxfp4Rows(name, shape, [codes, scales]))
    for name, stem in list(store.ending("_scales")):
        if store.tensors[name].dtype == "U8" and store.scheme.method == "mxfp4":
            with store.about(name, stem):
                raise BadInput(
                    f"{store.where(name)}: tensor {shown(name)} has no matching _blocks tensor",
                    "Fetch the checkpoint again.",
                )


def _gpt_oss(store: Store, name: str, stem: str) -> None:
    codes = store.companion(name, name)
    scales = store.companion(name, f"{stem}_scales", ("U8",))
    if len(codes.shape) < 3 or codes.shape[-1] != _MX // 2:
        raise BadInput(f"{codes} has shape {list(codes.shape)}, not groups of {_MX // 2} bytes")
    if scales.shape != codes.shape[:-1]:
        raise BadInput(f"{scales} has shape {list(scales.shape)}, {shown(name)} needs {list(codes.shape[:-1])}")
    store.put(name, ExpertRows(stem, (*codes.shape[:-2], codes.shape[-2] * _MX), [codes, scales]))


def _packed(store: Store, name: str, module: str) -> None:
    codes, scales, shape = _groups(store, name, f"{module}.weight_scale")
    if scales.dtype != "F8_E4M3":
        store.put(name, Mxfp4Rows(f"{module}.weight", shape, [codes, scales]))
        return
    whole = store.companion(name, f"{module}.weight_global_scale", ("F32",), 1)
    store.put(name, Nvfp4Rows(f"{module}.weight", shape, [codes, scales, whole], "BF16", divides=True))


def _modelopt(store: Store, name: str, module: str) -> None:
    codes, scales, shape = _groups(store, name, f"{module}.weight_scale")
    if scales.dtype != "F8_E4M3":
        store.put(name, Mxfp4Rows(name, shape, [codes, scales]))
        return
    whole = store.companion(name, f"{module}.weight_scale_2", ("F32",))
    if whole.n_values not in (1, prod(shape[:-2])):
        raise BadInput(
            f"{whole} has shape {list(whole.shape)}, {shown(name)} needs a value for the tensor or for each slice"
        )
    store.put(name, Nvfp4Rows(name, shape, [codes, scales, whole], "F32", divides=False))


def _groups(store: Store, name: str, scale: str) -> tuple[Raw, Raw, tuple[int, ...]]:
    """Codes, the scales of their groups, and the shape of the values."""
    codes = store.companion(name, name)
    scales = store.companion(name, scale, _BYTES)
    group = _NV if scales.dtype == "F8_E4M3" else _MX
    if (
        len(codes.shape) < 2
        or scales.shape != (*codes.shape[:-1], 2 * codes.shape[-1] // group)
        or codes.shape[-1] * 2 % group
    ):
        raise BadInput(
            f"{scales} has shape {list(scales.shape)}, {shown(name)} {list(codes.shape)}: not groups of {group} values"
        )
    return codes, scales, (*codes.shape[:-1], 2 * codes.shape[-1])


FORMAT = Format(find, methods=("mxfp4",), settings=(), likely_parts={r"\.weight_(global_scale|scale_2)$": LOST})
