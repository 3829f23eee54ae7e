"""Llama 1, 2, 3 and 3.x: half-split rotary layout undone, llama3 scaling as a tensor of frequency factors."""

from __future__ import annotations

import math

import numpy as np

from ...errors import BadInput
from ...kit import Constant, interleaved, take
from ...rows import Floats, Rows
from ..config import Config, head_width
from ..family import Family, class_defaults
from ..keys import BASE, rope_dimension_count, vocab_size
from ..rules import Rule
from ..tokenizers import LLAMA


def interleave_q(rows: Rows, config: Config) -> Rows:
    """Query rows with adjacent rotary pairs."""
    return take(rows, interleaved(rows.shape[0], config.n_heads))


def interleave_k(rows: Rows, config: Config) -> Rows:
    """Key rows with adjacent rotary pairs."""
    return take(rows, interleaved(rows.shape[0], config.n_kv_heads))


def rope_factors(config: Config) -> Floats:
    """Divisors of the rotary frequencies in llama3 scaling, float32[head_dim / 2].

    Long wavelengths are stretched by ``factor``, short ones left alone, those between interpolated.
    Source: ``_compute_llama3_parameters`` of transformers' modeling_rope_utils; all in float32, quotients of a number and an
    array as product with the reciprocal, as torch computes them. Every step is correctly rounded, so that no processor's
    arithmetic shows: the power, for which numpy's float32 depends on the instruction set, comes from float64.
    """
    rope = config.rope
    defaults = {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    given = {k: default if rope.get(k) is None else rope[k] for k, default in defaults.items()}
    factor, low, high, original = given.values()
    theta = rope.get("rope_theta")
    theta = 10000.0 if theta is None else theta
    if not all(isinstance(v, (int, float)) and 0 < v < 1e38 for v in (*given.values(), theta)) or low == high:
        raise BadInput(f"config.json: llama3 RoPE scaling with {given} and rope_theta {theta} makes no sense")
    f32 = np.float32
    dim = config.head_dim
    exponents = np.arange(0, dim, 2, dtype=np.float32) / f32(dim)
    powers = [math.pow(f32(theta), exponent) for exponent in exponents]
    frequencies = f32(1) / np.array(powers, np.float64).astype(np.float32)
    wavelengths = (f32(1) / frequencies) * f32(2 * np.pi)
    share = ((f32(1) / wavelengths) * f32(original) - f32(low)) / f32(high - low)
    between = f32(1) / ((f32(1) - share) / f32(factor) + share)
    stretched = np.where(wavelengths > f32(original / low), f32(factor), between)
    factors: Floats = np.where(wavelengths < f32(original / high), f32(1), stretched)
    return factors.astype(np.float32)


ROPE_FREQS = Rule(
    ("rope_freqs.weight",),
    make=lambda _, config: [Constant(rope_factors(config))],
    when=lambda config, _: str(config.rope.get("rope_type", "")).lower() == "llama3",
)
FAMILY = Family(
    arch="llama",
    architectures=("LlamaForCausalLM", "LLaMAForCausalLM", "LlamaModel"),
    classes={"llama": class_defaults(
        32000, 2048, 4096, 11008, 32, 32, None, head_dim=head_width, bos_token_id=1, eos_token_id=2,
    )},
    keys=(*BASE, vocab_size, rope_dimension_count),
    transforms={"attn_q": interleave_q, "attn_k": interleave_k},
    rules=(ROPE_FREQS,),
    tokenizer=LLAMA,
)  # fmt: skip
