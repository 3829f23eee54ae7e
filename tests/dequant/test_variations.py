"""Random shapes, widths, groups and types of every encoding, against decoders written straight from the definitions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from quantized_files import bf16, write_safetensors

import streamconv
from streamconv import dequant
from streamconv.dequant.formats.bnb4 import TABLES
from streamconv.sources import open_checkpoint

Made = tuple[dict[str, tuple[str, np.ndarray]], dict[str, Any] | None, np.ndarray]
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)


def widened(words: np.ndarray) -> np.ndarray:
    return (words.astype(np.uint32) << 16).view(np.float32)


def rounded(x: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "BF16":
        return widened(bf16(x))
    return x.astype(np.float16).astype(np.float32) if dtype == "F16" else x


def some_scales(rng: np.random.Generator, shape: Any) -> tuple[tuple[str, np.ndarray], np.ndarray]:
    x = rng.uniform(0.01, 0.1, shape).astype(np.float32)
    kind = rng.choice(["F32", "F16", "BF16"])
    stored = {"F32": x, "F16": x.astype(np.float16), "BF16": bf16(x)}[str(kind)]
    return (str(kind), stored), rounded(x, str(kind))


def packed(levels: np.ndarray, bits: int) -> np.ndarray:
    """Each row of codes as one stream of bits in 32-bit words."""
    flat = (levels[:, :, None] >> np.arange(bits) & 1).reshape(len(levels), -1).astype(np.uint8)
    flat = np.pad(flat, ((0, 0), (0, -flat.shape[1] % 32)))
    return np.packbits(flat, axis=1, bitorder="little").view("<i4")


def bnb4(rng: np.random.Generator) -> Made:
    shape = tuple(rng.integers(1, 70, rng.integers(1, 4)))
    n, block, kind = int(np.prod(shape)), int(rng.choice([32, 64, 128, 4096])), str(rng.choice(["nf4", "fp4"]))
    codes = rng.integers(0, 16, n + n % 2, np.uint8)
    n_blocks, dtype = -(-n // block), str(rng.choice(["float32", "float16", "bfloat16"]))
    state: dict[str, Any] = {"quant_type": kind, "blocksize": block, "dtype": dtype, "shape": [int(d) for d in shape]}
    table = np.array(TABLES[kind], np.float32)
    parts: dict[str, tuple[str, np.ndarray]] = {"w.weight.quant_map": ("F32", table)}
    if rng.integers(2):
        nested = int(rng.choice([16, 256]))
        q, chart = rng.integers(0, 256, n_blocks, np.uint8), np.linspace(-1, 1, 256).astype(np.float32)
        top, offset = rng.uniform(0.1, 1, -(-n_blocks // nested)).astype(np.float32), np.float32(0.7)
        scales = chart[q] * top[np.arange(n_blocks) // nested] + offset
        state |= {"nested_blocksize": nested, "nested_dtype": "float32", "nested_offset": float(offset)}
        parts |= {"w.weight.absmax": ("U8", q), "w.weight.nested_quant_map": ("F32", chart),
                  "w.weight.nested_absmax": ("F32", top)}  # fmt: skip
    else:
        scales = rng.uniform(0.1, 1, n_blocks).astype(np.float32)
        parts["w.weight.absmax"] = "F32", scales
    raw = codes[0::2] << 4 | codes[1::2]
    storage = [s for s, size in (("U8", 1), ("BF16", 2), ("F16", 2), ("F32", 4)) if len(raw) % size == 0]
    label = str(rng.choice(storage))
    word = {"U8": "u1", "F32": "<u4"}.get(label, "<u2")
    parts["w.weight"] = label, raw.view(word)[:, None] if rng.integers(2) else raw.view(word)[None]
    blob = np.frombuffer(json.dumps(state).encode(), np.uint8)
    parts[f"w.weight.quant_state.bitsandbytes__{kind}"] = "U8", blob
    short = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}[dtype]
    return parts, None, rounded(table[codes[:n]] * scales[np.arange(n) // block], short).reshape(shape)


def gptq(rng: np.random.Generator) -> Made:
    bits, version = int(rng.choice([2, 3, 4, 8])), int(rng.integers(1, 3))
    k, n = 32 * int(rng.integers(1, 9)), 32 * int(rng.integers(1, 5))
    group = int(rng.choice([-1, 16, 32, 64, 10**30]))
    width = k if group in (-1, 10**30) else group
    n_groups = -(-k // width)
    q, z = rng.integers(0, 1 << bits, (k, n)), rng.integers(0, 1 << bits, (n_groups, n))
    stored, scales = some_scales(rng, (n_groups, n))
    index = np.arange(k) // width
    is_turned = bool(rng.integers(2))
    if is_turned:
        index = rng.permutation(index)
    parts = {
        "w.qweight": ("I32", packed(q.T, bits).T.copy()), "w.scales": stored,
        "w.qzeros": ("I32", packed((z - (version == 1)) % (1 << bits), bits)),
    }  # fmt: skip
    if rng.integers(2) or is_turned:
        parts["w.g_idx"] = "I32", index.astype("<i4")
    config = {"quant_method": "gptq", "bits": bits, "group_size": group, "desc_act": is_turned}
    config["checkpoint_format"] = "gptq" if version == 1 else "gptq_v2"
    return parts, config, ((q - z[index]).astype(np.float32) * scales[index]).T


def awq(rng: np.random.Generator) -> Made:
    k, n, group = 64 * int(rng.integers(1, 5)), 8 * int(rng.integers(1, 12)), int(rng.choice([-1, 32, 64]))
    width = k if group == -1 else group
    q, z = rng.integers(0, 16, (k, n)), rng.integers(0, 16, (k // width, n))
    stored, scales = some_scales(rng, (k // width, n))
    order = np.array([0, 2, 4, 6, 1, 3, 5, 7])

    def words(x: np.ndarray) -> np.ndarray:
        return packed(x.reshape(len(x), -1, 8)[:, :, order].reshape(len(x), -1), 4)

    parts = {"w.qweight": ("I32", words(q)), "w.qzeros": ("I32", words(z)), "w.scales": stored}
    index = np.arange(k) // width
    config = {"quant_method": "awq", "bits": 4, "group_size": group, "version": "gemm", "zero_point": True}
    return parts, config, ((q - z[index]).astype(np.float32) * scales[index]).T


def compressed(rng: np.random.Generator) -> Made:
    bits, n = int(rng.choice([2, 3, 4, 5, 6, 7, 8])), int(rng.integers(1, 90))
    width = int(rng.choice([16, 32, 128]))
    k = width * int(rng.integers(1, 5))
    q, z = rng.integers(0, 1 << bits, (n, k)), np.full((n, k // width), 1 << bits - 1)
    stored, scales = some_scales(rng, z.shape)
    index = np.arange(k) // width
    parts = {"w.weight_packed": ("I32", packed(q, bits)), "w.weight_scale": stored,
             "w.weight_shape": ("I64", np.array([n, k], "<i8"))}  # fmt: skip
    if rng.integers(2):
        z = rng.integers(0, 1 << bits, z.shape)
        parts["w.weight_zero_point"] = "I32", packed(z.T, bits).T.copy()
    if rng.integers(2):
        index = rng.permutation(index)
        parts["w.weight_g_idx"] = "I32", index.astype("<i4")
    weights = {"num_bits": bits, "group_size": width}
    config = {"quant_method": "compressed-tensors", "config_groups": {"g": {"targets": ["Linear"], "weights": weights}}}
    return parts, config, rounded((q - z[:, index]).astype(np.float32) * scales[:, index], stored[0])


def whole_numbers(rng: np.random.Generator) -> Made:
    n, k = (int(d) for d in rng.integers(1, 90, 2))
    codes = rng.integers(-128, 128, (n, k)).astype(np.int8)
    if rng.integers(2):
        scb = rng.uniform(0.1, 1, n).astype(np.float32)
        parts = {"w.weight": ("I8", codes), "w.SCB": ("F32", scb)}
        return parts, None, codes.astype(np.float32) * scb[:, None] * np.float32(0.007874015718698502)
    stored, scales = some_scales(rng, (n, 1))
    zeros = rng.integers(-128, 128, (n, 1)).astype(np.int8)
    parts = {"w.weight": ("I8", codes), "w.weight_scale": stored, "w.weight_zero_point": ("I8", zeros)}
    x = (codes.astype(np.float32) - zeros) * scales
    return parts, {"quant_method": "compressed-tensors"}, rounded(x, stored[0])


def float8(rng: np.random.Generator) -> Made:
    n, k = (int(d) for d in rng.integers(1, 300, 2))
    codes = rng.integers(0, 127, (n, k), np.uint8) | rng.integers(0, 2, (n, k), np.uint8) << 7
    sign, exponent, mantissa = np.where(codes >> 7, -1.0, 1.0), (codes >> 3 & 15).astype(int), codes & 7
    x = np.where(exponent, (1 + mantissa / 8) * 2.0 ** (exponent - 7), mantissa * 2.0**-9) * sign
    block = [int(b) for b in rng.choice([16, 100, 128, 512], 2)]
    stored, scales = some_scales(rng, (-(-n // block[0]), -(-k // block[1])))
    spread = scales[np.arange(n) // block[0]][:, np.arange(k) // block[1]]
    config = {"quant_method": "fp8", "weight_block_size": block}
    return {"w.weight": ("F8_E4M3", codes), "w.weight_scale_inv": stored}, config, x.astype(np.float32) * spread


def four_bit_floats(rng: np.random.Generator) -> Made:
    is_mx, n = bool(rng.integers(2)), int(rng.integers(1, 60))
    group = 32 if is_mx else 16
    k = group * int(rng.integers(1, 9))
    codes = rng.integers(0, 16, (n, k), np.uint8)
    parts = {"w.weight_packed": ("U8", codes[:, 0::2] | codes[:, 1::2] << 4)}
    if is_mx:
        exponents = rng.integers(100, 140, (n, k // group), np.uint8)
        scales = np.exp2(exponents.astype(np.float32) - 127)
        parts["w.weight_scale"] = "U8", exponents
    else:
        raw = rng.integers(8, 120, (n, k // group), np.uint8)
        values = ((1 + (raw & 7) / 8) * 2.0 ** ((raw >> 3).astype(int) - 7)).astype(np.float32)
        whole = rng.uniform(100, 1000, 1).astype(np.float32)
        scales = values / whole
        parts |= {"w.weight_scale": ("F8_E4M3", raw), "w.weight_global_scale": ("F32", whole)}
    x = E2M1[codes] * np.repeat(scales, group, axis=1)
    return parts, {"quant_method": "compressed-tensors"}, rounded(x, "BF16")


def e4m3(codes: np.ndarray) -> np.ndarray:
    """Values of 8-bit floats that are not NaN."""
    sign, exponent, mantissa = np.where(codes >> 7, -1.0, 1.0), (codes >> 3 & 15).astype(int), codes & 7
    x = np.where(exponent, (1 + mantissa / 8) * 2.0 ** (exponent - 7), mantissa * 2.0**-9) * sign
    return x.astype(np.float32)


def with_factors(rng: np.random.Generator, parts: Any, x: np.ndarray) -> tuple[Any, np.ndarray]:
    """Perhaps with factors of the inputs, which belong to the weight."""
    if not rng.integers(2):
        return parts, x
    stored, factors = some_scales(rng, x.shape[-1:])
    return {**parts, "w.pre_quant_scale": stored}, x * factors


def modelopt_four_bit_floats(rng: np.random.Generator) -> Made:
    outer = tuple(int(d) for d in rng.integers(1, 5, rng.integers(2)))
    n, k, is_mx = int(rng.integers(1, 40)), 32 * int(rng.integers(1, 5)), bool(rng.integers(2))
    codes = rng.integers(0, 16, (*outer, n, k), np.uint8)
    parts = {
        "w.weight": ("U8", codes[..., 0::2] | codes[..., 1::2] << 4),
        "w.input_scale": ("F32", np.ones(1, np.float32)),
    }
    if is_mx:
        exponents = rng.integers(100, 140, (*outer, n, k // 32), np.uint8)
        x = E2M1[codes] * np.repeat(np.exp2(exponents.astype(np.float32) - 127), 32, axis=-1)
        return {**parts, "w.weight_scale": ("U8", exponents)}, {"quant_method": "modelopt", "quant_algo": "MXFP4"}, x
    raw = rng.integers(1, 127, (*outer, n, k // 16), np.uint8)
    whole = rng.uniform(0.0001, 0.001, outer if outer and rng.integers(2) else ()).astype(np.float32)
    scales = e4m3(raw) * (whole[:, None, None] if whole.shape else whole)
    parts |= {"w.weight_scale": ("F8_E4M3", raw), "w.weight_scale_2": ("F32", whole)}
    parts, x = with_factors(rng, parts, E2M1[codes] * np.repeat(scales, 16, axis=-1))
    algorithm = str(rng.choice(["NVFP4", "nvfp4_awq", "W4A16_NVFP4", "W4A8_NVFP4_FP8", "MIXED_PRECISION"]))
    config = {"quant_algo": algorithm, "kv_cache_quant_algo": "FP8", "group_size": 16, "exclude_modules": ["lm_head"]}
    if rng.integers(2):
        return parts, {"producer": {"name": "modelopt", "version": "0.39"}, "quantization": config}, x
    return parts, {"quant_method": str(rng.choice(["modelopt", "modelopt_fp4"])), **config}, x


def deepseek_v4(rng: np.random.Generator) -> Made:
    n, k = int(rng.integers(1, 300)), 32 * int(rng.integers(1, 10))
    kind, config = (
        str(rng.choice(["U8", "F8_E8M0"])),
        {"quant_method": "fp8", "scale_fmt": "ue8m0", "expert_dtype": "fp4"},
    )
    if rng.integers(2):
        codes, exponents = rng.integers(0, 16, (n, k), np.uint8), rng.integers(100, 140, (n, k // 32), np.uint8)
        bytes_of = (codes[:, 0::2] | codes[:, 1::2] << 4).view(rng.choice([np.int8, np.uint8]))
        parts = {"w.weight": ({"i": "I8", "u": "U8"}[bytes_of.dtype.kind], bytes_of), "w.scale": (kind, exponents)}
        return parts, config, E2M1[codes] * np.repeat(np.exp2(exponents.astype(np.float32) - 127), 32, axis=-1)
    raw, exponents = (
        rng.integers(0, 127, (n, k), np.uint8),
        rng.integers(100, 140, (-(-n // 128), -(-k // 128)), np.uint8),
    )
    scales = np.exp2(exponents.astype(np.float32) - 127).repeat(128, axis=0)[:n].repeat(128, axis=1)[:, :k]
    return {"w.weight": ("F8_E4M3", raw), "w.scale": (kind, exponents)}, config, e4m3(raw) * scales


def modelopt_eight_bits(rng: np.random.Generator) -> Made:
    n, k = (int(d) for d in rng.integers(1, 300, 2))
    kind = str(rng.choice(["FP8", "FP8_PER_CHANNEL_PER_TOKEN", "fp8_pb_wo", "MXFP8", "W8A16"]))
    config = {"quant_method": "modelopt", "quant_algo": kind}
    codes = rng.integers(0, 127, (n, k), np.uint8) | rng.integers(0, 2, (n, k), np.uint8) << 7
    if kind == "fp8_pb_wo":
        side = int(rng.choice([16, 32, 128]))
        if side != 128:  # blocks of another size are told by the number of scales, if they are whole
            n, k = side * int(rng.integers(2, 6)), side * int(rng.integers(2, 6))
            codes = rng.integers(0, 127, (n, k), np.uint8)
        stored, scales = some_scales(rng, (-(-n // side), 1, -(-k // side), 1))
        spread = scales[np.arange(n) // side][:, 0, np.arange(k) // side, 0]
    elif kind == "MXFP8":
        k = 32 * int(rng.integers(1, 9))
        codes = rng.integers(0, 127, (n, k), np.uint8)
        exponents = rng.integers(100, 140, (n, k // 32), np.uint8)
        stored, spread = ("U8", exponents), np.repeat(np.exp2(exponents.astype(np.float32) - 127), 32, axis=1)
    else:
        stored, scales = some_scales(rng, () if kind == "FP8" else (n,))
        spread = scales.reshape(-1, 1)
    x = e4m3(codes)
    if kind == "W8A16":
        x, stored = codes.view(np.int8).astype(np.float32), ("F32", spread[:, 0].copy())
    parts = {"w.weight": ("I8" if kind == "W8A16" else "F8_E4M3", codes), "w.weight_scale": stored}
    parts, x = with_factors(rng, parts, x * spread)
    return parts, config, x


def modelopt_four_bits(rng: np.random.Generator) -> Made:
    n, width = 2 * int(rng.integers(1, 40)), int(rng.choice([16, 64, 128]))
    q = rng.integers(-8, 8, (n, width * int(rng.integers(1, 5))))
    stored, scales = some_scales(rng, (n, q.shape[1] // width))
    packed = ((q[0::2] & 15) | (q[1::2] & 15) << 4).astype(np.uint8)
    parts, x = with_factors(
        rng,
        {"w.weight": ("U8", packed), "w.weight_scale": stored},
        q.astype(np.float32) * np.repeat(scales, width, axis=1),
    )
    config = {"quant_algo": "W4A16_AWQ", "group_size": width, "has_zero_point": False, "pre_quant_scale": True}
    return parts, {"quant_method": "modelopt", **config}, x


def mlx(rng: np.random.Generator) -> Made:
    mode = str(rng.choice(["affine", "affine", "affine", "mxfp4", "mxfp8", "nvfp4"]))
    bits, width = {"mxfp4": (4, 32), "mxfp8": (8, 32), "nvfp4": (4, 16)}.get(
        mode, (int(rng.choice([2, 3, 4, 5, 6, 8])), int(rng.choice([32, 64, 128])))
    )
    outer = tuple(int(d) for d in rng.integers(1, 4, rng.integers(2)))
    shape = (*outer, int(rng.integers(1, 40)), max(32, width) * int(rng.integers(1, 5)))
    q = rng.integers(0, 127 if mode == "mxfp8" else 1 << bits, shape)
    words = packed(q.reshape(-1, shape[-1]), bits).view("<u4").reshape(*shape[:-1], -1)
    grouped = (*shape[:-1], shape[-1] // width)
    sizes = {"bits": bits, "group_size": width, **({"mode": mode} if mode != "affine" or rng.integers(2) else {})}
    other = {"bits": 4 if bits == 8 else 8, "group_size": 64}
    config: dict[str, Any] = {**other, "w": sizes, "v": False} if rng.integers(2) else {**sizes, "v": other}
    parts: dict[str, tuple[str, np.ndarray]] = {"w.weight": ("U32", words)}
    if mode == "affine":
        stored, scales = some_scales(rng, grouped)
        x = -rng.uniform(0.1, 1, grouped).astype(np.float32)
        word = {"F32": x, "F16": x.astype(np.float16), "BF16": bf16(x)}[stored[0]]
        parts |= {"w.scales": stored, "w.biases": (stored[0], word)}
        spread = [np.repeat(part, width, axis=-1) for part in (scales, rounded(x, stored[0]))]
        return parts, config, rounded(q.astype(np.float32) * spread[0] + spread[1], stored[0])
    raw = rng.integers(100, 120, grouped, np.uint8)
    parts["w.scales"] = "U8", raw
    scales = e4m3(raw) if mode == "nvfp4" else np.exp2(raw.astype(np.float32) - 127)
    return parts, config, (e4m3(q) if mode == "mxfp8" else E2M1[q]) * np.repeat(scales, width, axis=-1)


def bitnet(rng: np.random.Generator) -> Made:
    n, k = 4 * int(rng.integers(1, 40)), int(rng.integers(1, 300))
    q = rng.integers(-1, 2, (n, k))
    codes = (q + 1).astype(np.uint8).reshape(4, n // 4, k)
    stored, scale = some_scales(rng, 1)
    parts = {"w.weight": ("U8", codes[0] | codes[1] << 2 | codes[2] << 4 | codes[3] << 6), "w.weight_scale": stored}
    multiplies = bool(rng.integers(2))
    config = {"quant_method": "bitnet", "linear_class": "autobitlinear" if multiplies else "bitlinear"}
    return parts, config, (q * scale if multiplies else q / scale).astype(np.float32)


def sparse24(rng: np.random.Generator) -> Made:
    n, k = int(rng.integers(1, 40)), 4 * int(rng.integers(1, 70))
    keep = np.argsort(rng.random((n, k // 4, 4)), axis=-1).argsort(axis=-1) < 2
    keep = keep.reshape(n, k)
    kind = str(rng.choice(["F32", "F16", "BF16", "F8_E4M3", "I8"]))
    parts: dict[str, tuple[str, np.ndarray]] = {
        "w.bitmask": ("U8", np.packbits(keep, axis=1, bitorder="little")), "w.shape": ("I64", np.array([[n], [k]], "<i8")),
    }  # fmt: skip
    x = np.zeros((n, k), np.float32)
    config = {
        "quant_method": "compressed-tensors",
        "sparsity_config": {"format": "sparse-24-bitmask", "targets": ["Linear"]},
    }
    if kind in ("F8_E4M3", "I8"):
        codes = rng.integers(0, 127, (n, k // 2), np.uint8)
        values = e4m3(codes) if kind == "F8_E4M3" else codes.astype(np.float32)
        stored, scales = some_scales(rng, (n, 1) if rng.integers(2) else (1,))
        parts |= {"w.compressed": (kind, codes), "w.weight_scale": stored}
        x[keep] = values.reshape(-1)
        return parts, config, rounded(x * scales, stored[0])
    values = rng.standard_normal((n, k // 2)).astype(np.float32)
    parts["w.compressed"] = kind, {"F32": values, "F16": values.astype(np.float16), "BF16": bf16(values)}[kind]
    x[keep] = rounded(values, kind).reshape(-1)
    return parts, config, x


MAKERS = [bnb4, gptq, awq, compressed, whole_numbers, float8, four_bit_floats, modelopt_four_bit_floats, modelopt_eight_bits,
          modelopt_four_bits, mlx, bitnet, sparse24, deepseek_v4]  # fmt: skip


@pytest.mark.parametrize("make", MAKERS)
def test_any_variation_is_what_the_definition_says(tmp_path: Path, make: Any) -> None:
    for seed in range(25):
        rng = np.random.default_rng([seed, MAKERS.index(make)])
        parts, config, expected = make(rng)
        path = write_safetensors(tmp_path / f"{seed}.safetensors", parts)
        rows = streamconv.open(path, config)["w.weight"]
        assert list(dequant.decoded(open_checkpoint(path), config).tensors) == ["w.weight"], "nothing is left over"
        assert rows.shape == expected.shape, seed
        matrix = expected.reshape(rows.n_rows, -1)  # type: ignore[attr-defined]
        start, stop = sorted(rng.integers(0, len(matrix) + 1, 2))
        found = rows.read(start, stop)
        assert np.array_equal(found, matrix[start:stop]), (seed, rows)
