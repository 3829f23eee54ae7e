"""bitsandbytes with four bits: NF4 and FP4, scales plain or quantized themselves.

Blocks run over the flat tensor and cross its rows. Arithmetic: scale = table[code] · nested scale + offset (two float32
roundings), value = code value · scale (one), then one rounding to the type the weight had. Source: the library's portable path,
``functional.dequantize_4bit`` (bitsandbytes 0.50.2); its AVX-512 kernel differs where rows are not whole blocks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from ...errors import BadInput
from ...kernels import load
from ...rows import Floats
from ...sources.hostile_json import NotJson, parse_json
from ...sources.naming import shown
from ..format import Format
from ..nibble_rows import NibbleRows
from ..raw import Raw, frozen
from ..store import Store

_STATE = ".quant_state.bitsandbytes__"
_BLOCKS = (32, 64, 128, 256, 512, 1024, 2048, 4096)
_DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
#: real ones have 150 to 300
_MAX_STATE_BYTES = 1024
_MAX_DIMENSIONS = 64
#: of all dimensions that are not 0
_MAX_ELEMENTS = 2**59


def _from_bits(words: tuple[int, ...]) -> tuple[float, ...]:
    return tuple(float(v) for v in np.array(words, np.uint32).view(np.float32))


_FP4 = (0, 0x3BAAAAAB, 0x3F2AAAAB, 0x3F800000, 0x3EAAAAAB, 0x3F000000, 0x3E2AAAAB, 0x3E800000)
TABLES = {
    "nf4": _from_bits((
        0xBF800000, 0xBF3239B1, 0xBF066B30, 0xBECA32A0, 0xBE91A24D, 0xBE3D353F, 0xBDBA7871, 0x00000000,
        0x3DA2FAFF, 0x3E24CAE3, 0x3E7C04DD, 0x3EAD033A, 0x3EE1A4B8, 0x3F1007AB, 0x3F3913B3, 0x3F800000,
    )),
    # Code 8 is +0: writers emit it for zeros.
    "fp4": _from_bits((*_FP4, 0, *(v | 0x80000000 for v in _FP4[1:]))),
}  # fmt: skip


@dataclass(frozen=True)
class State:
    """The fields of a ``quant_state`` blob; ``nested_block`` is 0 when the scales are plain."""

    kind: str
    block: int
    dtype: str
    shape: tuple[int, ...]
    nested_block: int = 0
    offset: float = 0.0


class Bnb4Rows(NibbleRows):
    """A weight of four bits; ``parts`` are the codes, ``absmax`` and, with double quantization, the nested map and scales."""

    def __init__(self, name: str, state: State, parts: tuple[Raw, ...]) -> None:
        nested = "double-quantized, " if state.nested_block else ""
        super().__init__(
            name, state.shape, state.dtype, f"bnb-{state.kind} ({nested}block {state.block})", parts,
            table=TABLES[state.kind], high_first=True, block=state.block,
        )  # fmt: skip
        self._state = state

    @cached_property
    def _nested_map(self) -> Floats:
        return self.parts[2].floats(0, 256)

    def _scales(self, start: int, stop: int) -> Floats:
        if not self._state.nested_block:
            return self.parts[1].floats(start, stop)
        block = self._state.nested_block
        first, last = start // block, -(-stop // block)
        scales = np.empty(stop - start, np.float32)
        load(".dequant.kernels.nibbles").nested_scales(
            self.parts[1].bytes(start, stop), self._nested_map, self.parts[3].floats(first, last), block,
            start - first * block, np.float32(self._state.offset), scales,
        )  # fmt: skip
        return frozen(scales)


def find(store: Store) -> None:
    """Recognise weights by their ``quant_state``.

    Raises
    ------
    BadInput : a part is missing or contradicts the state; names file and tensor
    """
    names = [name for name in store.tensors if _STATE in name]
    for name in names:  # they lie far apart, and the first wait would be followed by as many more
        store.tensors[name].prefetch(0, 1)
    for name in names:
        weight, kind = name.split(_STATE, 1)
        with store.about(name, weight):
            _put(store, name, weight, kind)


def _put(store: Store, name: str, weight: str, kind: str) -> None:
    blob = store.raw(name)
    packed = store.companion(name, weight)
    state = _state(blob, kind)
    n = prod(state.shape)
    if packed.n_bytes != -(-n // 2):
        raise BadInput(
            f"{packed}: shape {list(state.shape)} needs {-(-n // 2)} packed bytes, {packed.n_bytes} are there"
        )
    n_blocks = -(-n // state.block)
    quant_map = store.companion(weight, f"{weight}.quant_map", ("F32",), 16)
    if tuple(quant_map.floats(0, 16)) != TABLES[kind]:
        raise BadInput(
            f"{quant_map} is not the table of {kind}", "The file is damaged, or was written by an unknown tool."
        )
    absmax = store.companion(weight, f"{weight}.absmax")
    if len(absmax.shape) != 1 or absmax.dtype not in ("F32", "U8"):
        raise BadInput(
            f"{absmax} is {absmax.dtype}{list(absmax.shape)}, not one row of F32 or U8",
            "It was saved after the model had run on a CPU, which loses scales; save it again from a fresh load.",
        )
    if absmax.n_values != n_blocks:
        raise BadInput(f"{absmax} has {absmax.n_values} values for {n_blocks} blocks of {state.block}")
    if (absmax.dtype == "U8") != bool(state.nested_block):
        raise BadInput(
            f"{absmax} is {absmax.dtype}, but {shown(name)} {'has' if state.nested_block else 'lacks'} nested_blocksize"
        )
    parts: tuple[Raw, ...] = (packed, absmax)
    if state.nested_block:
        n_nested = -(-n_blocks // state.nested_block)
        parts += (
            store.companion(weight, f"{weight}.nested_quant_map", ("F32",), 256),
            store.companion(weight, f"{weight}.nested_absmax", ("F32",), n_nested),
        )
    store.put(weight, Bnb4Rows(weight, state, parts), blob, quant_map)


def _state(blob: Raw, kind: str) -> State:
    """Read and check a ``quant_state`` blob, whose key says ``kind``."""
    if kind not in TABLES:
        raise BadInput(f"{blob}: weights of type {shown(kind)} are not supported", "Supported: nf4 and fp4.")
    if blob.n_bytes > _MAX_STATE_BYTES:
        raise BadInput(f"{blob}: a quant_state of {blob.n_bytes} bytes is too large")
    try:
        fields = parse_json(blob.bytes(0, blob.n_bytes).tobytes())
    except NotJson as e:
        raise BadInput(f"{blob}: the quant_state {e}") from None
    if not isinstance(fields, dict):
        raise BadInput(f"{blob}: the quant_state is not a JSON object")

    def refuse(key: str, wanted: str) -> BadInput:
        return BadInput(f"{blob}: {key} of the quant_state is {shown(str(fields.get(key)))}, not {wanted}")

    if fields.get("quant_type") != kind:
        raise refuse("quant_type", kind)
    block, dtype, shape = fields.get("blocksize"), fields.get("dtype"), fields.get("shape")
    if type(block) is not int or block not in _BLOCKS:
        raise refuse("blocksize", f"one of {', '.join(map(str, _BLOCKS))}")
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise refuse("dtype", f"one of {', '.join(_DTYPES)}")
    if not isinstance(shape, list) or len(shape) > _MAX_DIMENSIONS or not all(type(d) is int and d >= 0 for d in shape):
        raise refuse("shape", "a list of sizes")
    if prod(d for d in shape if d) > _MAX_ELEMENTS:
        raise refuse("shape", "a size that fits 64 bits")
    nested = fields.get("nested_blocksize")
    if nested is None:
        return State(kind, block, _DTYPES[dtype], tuple(shape))
    if type(nested) is not int or not 0 < nested <= 1 << 20:
        raise refuse("nested_blocksize", "a number of scales")
    if fields.get("nested_dtype", "float32") != "float32":
        raise refuse("nested_dtype", "float32")
    return State(kind, block, _DTYPES[dtype], tuple(shape), nested, _offset(fields.get("nested_offset"), refuse))


def _offset(value: Any, refuse: Any) -> float:
    """``nested_offset`` in float32."""
    if type(value) not in (int, float) or not abs(value) < 3e38 or not math.isfinite(value):
        raise refuse("nested_offset", "a number")
    return float(np.float32(value))


#: what decides nothing: each weight says itself how it is stored
BNB_SETTINGS = (
    "load_in_4bit", "load_in_8bit", "bnb_4bit_compute_dtype", "bnb_4bit_quant_type", "bnb_4bit_use_double_quant",
    "bnb_4bit_quant_storage", "llm_int8_threshold", "llm_int8_skip_modules", "llm_int8_enable_fp32_cpu_offload",
    "llm_int8_has_fp16_weight", "blocksize", "target_parameters",
)  # fmt: skip
FORMAT = Format(
    find,
    methods=("bitsandbytes",),
    settings=BNB_SETTINGS,
    parts={r"\.(nested_)?(absmax|quant_map)$": "a 4-bit weight, whose quant_state is missing"},
)
