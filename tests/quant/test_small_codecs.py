"""TQ1_0, TQ2_0, Q1_0, Q2_0, MXFP4 and NVFP4: the bytes of ggml and of slow, obvious models, and where we differ on purpose."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streamconv
from streamconv.errors import BadInput, UsageError
from streamconv.quant.base import codec
from streamconv.quant.encode import EncodedRows, Encoding
from streamconv.quant.filetypes import parse_file_type, parse_tensor_type
from streamconv.quant.mix import assign_types
from streamconv.quant.mix_facts import MixOptions, ModelFacts, TensorFacts
from streamconv.quant.types import TYPES
from streamconv.rows import Bytes, Floats, Rows

TERNARY = ["TQ1_0", "TQ2_0", "Q2_0"]
SMALL = [*TERNARY, "Q1_0", "MXFP4", "NVFP4"]
MAGNITUDES = [0, 1, 2, 3, 4, 6, 8, 12]


def quantized(x: Floats, name: str, *, compat: bool = False) -> Bytes:
    return streamconv.quantize(x, name, threads=1, compat=compat)


def decoded(x: Floats, name: str) -> Floats:
    return streamconv.dequantize(quantized(x, name), name, x.shape[1], threads=1)


# -- the same bytes as ggml ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).resolve().parents[1] / "data" / "quants" / "golden-small.npz") as file:
        return dict(file)


@pytest.mark.parametrize("rows", ["mixed", "edge"])
@pytest.mark.parametrize("name", SMALL)
def test_bytes_equal_those_of_ggml(golden: dict[str, np.ndarray], name: str, rows: str) -> None:
    x, expected = golden[f"{rows}.x"], golden[f"{rows}.{name}"]
    got = quantized(x, name, compat=True)
    assert (got == expected).all(), f"rows {np.flatnonzero((got != expected).any(axis=1))}"
    importance = np.random.default_rng(1).random(x.shape[1], np.float32)
    assert (streamconv.quantize(x, name, imatrix=importance, compat=True) == expected).all(), "importance is not used"


# -- slow, obvious models ----------------------------------------------------------------------------------------------


def round_half_away(v: float) -> int:
    return int(math.copysign(math.floor(abs(v) + 0.5), v))


def trits(x: Floats) -> tuple[np.float16, list[int]]:
    d = np.abs(x).max()
    inverse = np.float32(1) / d if d else np.float32(0)
    return np.float16(d), [round_half_away(float(v * inverse)) + 1 for v in x]


def slow_tq2_0(x: Floats) -> bytes:
    d, levels = trits(x)
    qs = [sum(levels[128 * h + m + 32 * n] << 2 * n for n in range(4)) for h in range(2) for m in range(32)]
    return bytes(qs) + d.tobytes()


def slow_tq1_0(x: Floats) -> bytes:
    d, levels = trits(x)
    groups = [[m + 32 * n for n in range(5)] for m in range(32)]
    groups += [[160 + m + 16 * n for n in range(5)] for m in range(16)]
    groups += [[240 + m + 4 * n for n in range(4)] for m in range(4)]
    numbers = [sum(levels[i] * 3 ** (4 - n) for n, i in enumerate(g)) for g in groups]
    return bytes(-(-number * 256 // 243) for number in numbers) + d.tobytes()


def slow_q2_0(x: Floats) -> bytes:
    d, levels = trits(x)
    return d.tobytes() + bytes(sum(levels[j + n] << 2 * n for n in range(4)) for j in range(0, 64, 4))


def slow_q1_0(x: Floats) -> bytes:
    total = np.float32(0)
    for v in x:
        total += abs(v)
    return np.float16(total / np.float32(128)).tobytes() + np.packbits(x >= 0, bitorder="little").tobytes()


def nearest(v: float, step: float) -> int:
    best = min(range(8), key=lambda k: (abs(MAGNITUDES[k] * step - abs(v)), k))
    return best | 8 if v < 0 and best else best


def nibbles(codes: list[int]) -> bytes:
    half = len(codes) // 2
    return bytes(low | high << 4 for low, high in zip(codes[:half], codes[half:], strict=True))


def slow_mxfp4(x: Floats) -> bytes:
    amax = float(np.abs(x).max())
    e = max(0, math.floor(np.float32(math.log2(amax))) - 2 + 127) if amax else 0
    return bytes([e]) + nibbles([nearest(float(v), 2.0 ** (e - 128)) for v in x])


def slow_nvfp4(x: Floats) -> bytes:
    """Scales are the nearest of the 120 finite ones below 256, ties up."""
    values = [man / 512 for man in range(8)] + [(1 + m / 8) * 2.0 ** (e - 7) for e in range(1, 15) for m in range(8)]
    scales, qs = b"", b""
    for part in x.reshape(4, 16):
        want = float(np.abs(part).max() / np.float32(6))
        byte = min(range(len(values)), key=lambda k: (abs(values[k] - want), -k))
        byte = 7 if want < 2.0**-6 and byte == 8 else byte  # the reference caps before it rounds up to the normal ones
        scales += bytes([byte])
        qs += nibbles([nearest(float(v), values[byte] / 2) for v in part] if byte else [0] * 16)
    return scales + qs


MODELS: dict[str, Callable[[Floats], bytes]] = {
    "TQ1_0": slow_tq1_0,
    "TQ2_0": slow_tq2_0,
    "Q2_0": slow_q2_0,
    "Q1_0": slow_q1_0,
    "MXFP4": slow_mxfp4,
    "NVFP4": slow_nvfp4,
}


@pytest.mark.parametrize("name", SMALL)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), exponent=st.integers(-12, 3), steps=st.sampled_from([0, 2, 8, 64]))
def test_bytes_equal_those_of_a_slow_model(name: str, seed: int, exponent: int, steps: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((1, TYPES[name].block_size))
    if steps:  # many values lie exactly between two levels
        x = np.round(x * steps) / steps
    x = np.clip(x * 2.0**exponent, -1500, 1500).astype(np.float32)
    assert quantized(x, name)[0].tobytes() == MODELS[name](x[0])


# -- single facts ----------------------------------------------------------------------------------------------------


def test_every_byte_of_tq1_0_decodes_to_its_ternary_digits() -> None:
    data = np.zeros((256, 54), np.uint8)
    data[:, :48] = np.arange(256, dtype=np.uint8)[:, None]
    data[:, 52:] = np.float16(1).reshape(1).view(np.uint8)
    y = streamconv.dequantize(data, "TQ1_0", 256)
    for n in range(5):
        digit = [(byte * 3**n % 256) * 3 // 256 - 1 for byte in range(256)]
        assert (y[:, 32 * n] == digit).all()
        assert (y[:, 160 + 16 * n] == digit).all()


def test_the_fourth_level_of_q2_0_decodes() -> None:
    data = np.zeros((1, 18), np.uint8)
    data[0, :2] = np.float16(0.5).reshape(1).view(np.uint8)
    data[0, 2] = 0b11_10_01_00
    assert streamconv.dequantize(data, "Q2_0", 64)[0, :4].tolist() == [-0.5, 0, 0.5, 1]


def test_a_negative_zero_counts_as_positive_in_q1_0() -> None:
    x = np.full((1, 128), -1, np.float32)
    x[0, 3] = -0.0
    assert np.flatnonzero(decoded(x, "Q1_0") > 0).tolist() == [3]


@pytest.mark.parametrize("exponent", [-60, -7, 4, 40, 100])
def test_mxfp4_takes_the_larger_exponent_where_log2f_rounds_up(exponent: int) -> None:
    power = np.float32(2.0**exponent)
    place = (exponent - 1).bit_length() - 1 if exponent > 0 else (-exponent).bit_length() - 1
    last = int(math.log(2) * 2**place)
    for ulps, larger in ((last, True), (last + 1, False)):
        x = np.zeros((1, 32), np.float32)
        x[0, 7] = (power.view(np.int32) - np.int32(ulps)).view(np.float32)
        assert quantized(x, "MXFP4")[0, 0] == exponent + 125 - (not larger)


def test_mxfp4_does_not_wrap_for_denormals_unless_asked() -> None:
    x = np.full((1, 32), 2.0**-127, np.float32)
    wrapped = quantized(x, "MXFP4", compat=True)
    assert wrapped[0, 0] == 254
    assert not wrapped[0, 1:].any()
    assert quantized(x, "MXFP4")[0, 0] == 0
    assert (decoded(x, "MXFP4") == x).all()


def test_the_largest_floats_stay_finite_in_mxfp4() -> None:
    x = np.full((1, 32), np.finfo(np.float32).max, np.float32)
    x[0, ::2] *= -1
    y = decoded(x, "MXFP4")
    assert np.isfinite(y).all()
    assert (np.sign(y) == np.sign(x)).all()


def test_huge_weights_saturate_in_nvfp4_and_vanish_as_in_ggml_when_asked() -> None:
    x = np.full((1, 64), -1e30, np.float32)
    assert (decoded(x, "NVFP4") == -2688).all()
    assert not quantized(x, "NVFP4", compat=True)[0, 4:].any()


@pytest.mark.parametrize("name", ["TQ1_0", "TQ2_0", "Q2_0", "Q1_0"])
def test_a_scale_beyond_float16_is_an_error_with_its_row(name: str) -> None:
    x = np.ones((3, 256), np.float32)
    x[2] = 1e6
    with pytest.raises(BadInput, match=f"row 2 holds values too large for {name}"):
        quantized(x, name)


# -- bfloat16 rows, without a tile -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_bfloat16_rows_give_the_bytes_of_the_same_float32_rows(name: str) -> None:
    rng = np.random.default_rng(8)
    words = rng.integers(0, 1 << 16, (70, 1024), np.uint16)
    words[(words & 0x7F80) == 0x7F80] = 0x8000  # no NaN, no Inf, but -0
    words[3:9] = (rng.standard_normal((6, 1024)).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    x = (words.astype(np.uint32) << 16).view(np.float32)
    direct = codec(name).quantize_bf16
    assert direct
    got = np.empty((70, TYPES[name].row_bytes(1024)), np.uint8)
    assert direct(words, got) == np.abs(x).max()
    assert (got == quantized(x, name, compat=True)).all()
    for odd in (0x7F80, 0xFF80, 0x7FC0, 0xFFC1):
        words[5, 77:79] = odd, odd ^ 0x8000
        assert not np.isfinite(direct(words, got))


class Bf16Rows(Rows):
    """bfloat16 rows in memory; ``offset`` puts them on odd addresses, ``is_stored`` keeps the bytes from the encoder."""

    dtype = "BF16"

    def __init__(self, words: np.ndarray, offset: int = 0, is_stored: bool = True) -> None:
        raw = np.empty(words.nbytes + 2, np.uint8)
        self._bytes = raw[offset : offset + words.nbytes].reshape(words.shape[0], -1)
        self._bytes[...] = words.view(np.uint8)
        self._is_stored = is_stored
        self.shape = words.shape

    def read(self, start: int, stop: int, out: Floats | None = None) -> Floats:
        wide = np.ascontiguousarray(self._bytes[start:stop]).view(np.uint16).astype(np.uint32) << 16
        if out is None:
            return wide.view(np.float32)
        out[...] = wide.view(np.float32)
        return out

    def native(self, kind: str, start: int, stop: int) -> Bytes | None:
        return self._bytes[start:stop] if self._is_stored and kind == "BF16" else None

    def prefetch(self, start: int, stop: int) -> None: ...

    def release(self, start: int, stop: int) -> None: ...


@pytest.mark.parametrize("name", ["Q8_0", "Q4_0", "TQ2_0", "BF16"])
def test_every_way_into_the_encoder_gives_the_same_bytes_and_errors(name: str) -> None:
    words = (np.random.default_rng(2).standard_normal((40, 512)).astype(np.float32).view(np.uint32) >> 16).astype(
        np.uint16
    )

    def filled(rows: Bf16Rows) -> Bytes:
        out = np.empty((40, TYPES[name].row_bytes(512)), np.uint8)
        EncodedRows("t", rows, [Encoding(rows, TYPES[name])]).fill(0, 40, [out], np.empty(4096, np.float32))
        return out

    def ways() -> list[Bf16Rows]:
        return [Bf16Rows(words), Bf16Rows(words, offset=1), Bf16Rows(words, is_stored=False)]

    direct, *others = (filled(rows).tobytes() for rows in ways())
    assert others == [direct, direct]
    words[33, 7] = 0x7F80
    for rows in ways():
        with pytest.raises(BadInput, match="'t' holds inf at row 33, column 7"):
            filled(rows)
    words[33, 7] = 0x7F00  # about 1.7e38
    for rows in ways() if name != "BF16" else []:
        with pytest.raises(BadInput, match=f"'t', row 33 holds values too large for {name}"):
            filled(rows)


# -- in a file ---------------------------------------------------------------------------------------------------------


def types_of(ftype: str, *tensors: tuple[str, tuple[int, ...]]) -> list[str]:
    facts = [TensorFacts(name, shape, "BF16") for name, shape in tensors]
    model = ModelFacts("llama", n_layer=1, n_head=8, n_head_kv=8, n_expert=0)
    types = {c.name: c.type.name for c in assign_types(facts, model, parse_file_type(ftype), MixOptions())}
    return [types[name] for name, _ in tensors]


@pytest.mark.parametrize(
    ("ftype", "expected"),
    [
        ("TQ1_0", ["Q4_K", "TQ1_0", "Q4_0", "F16", "Q6_K"]),
        ("TQ2_0", ["Q4_K", "TQ2_0", "Q4_0", "F16", "Q6_K"]),
        ("Q2_0", ["Q4_K", "Q2_0", "Q4_0", "F16", "Q6_K"]),
        ("MXFP4_MOE", ["Q8_0", "Q8_0", "Q8_0", "F16", "Q8_0"]),
    ],
)
def test_file_types_fall_back_by_row_length(ftype: str, expected: list[str]) -> None:
    tensors = [
        ("token_embd.weight", (64, 512)),
        ("blk.0.ffn_up.weight", (64, 512)),
        ("blk.0.attn_q.weight", (64, 96)),
        ("blk.0.attn_k.weight", (64, 80)),
        ("output.weight", (64, 512)),
    ]
    assert types_of(ftype, *tensors) == expected


def test_experts_become_mxfp4_and_q1_0_has_no_substitute() -> None:
    assert types_of("mxfp4_moe", ("blk.0.ffn_up_exps.weight", (4, 64, 96)), ("output.weight", (8, 64))) == [
        "MXFP4",
        "Q8_0",
    ]
    with pytest.raises(UsageError, match="Q1_0 needs a multiple of 128 and has no substitute"):
        types_of("q1_0", ("blk.0.ffn_up.weight", (64, 96)), ("output.weight", (8, 256)))
    assert parse_tensor_type("nvfp4") is TYPES["NVFP4"]
    with pytest.raises(UsageError, match="unknown file type"):
        parse_file_type("NVFP4")


def test_the_sign_of_an_nvfp4_scale_does_not_count() -> None:
    blocks = np.zeros((256, 36), np.uint8)
    blocks[:, :4] = np.arange(256, dtype=np.uint8)[:, None]
    blocks[:, 4:] = 0x21  # codes 1 and 2 are 0.5 and 1
    first = streamconv.dequantize(blocks, "NVFP4", 64, threads=1)[:, 0]
    byte = np.arange(127)
    mantissa, exponent = byte & 7, byte >> 3
    scale = np.where(exponent > 0, (1 + mantissa / 8) * 2.0 ** (exponent - 7), mantissa * 2.0**-9)
    assert first[:127].tolist() == (0.5 * scale).tolist()
    assert first[128:255].tolist() == first[:127].tolist()
    assert (first[127], first[255]) == (0, 240)
