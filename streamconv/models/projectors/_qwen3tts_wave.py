"""What makes sound of codes in Qwen 3 TTS: a model in the folder ``speech_tokenizer``, whose tensors come before others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import BadInput
from ...kit import EXP, Averaged, Function, Mapped, Reshaped
from ...rows import Floats, Rows
from ...sources.folder import SPEECH
from ..config import Config
from ..rules import Rule

_CODES, DECODER = 15, f"{SPEECH}.decoder"
_ENDS = ("weight", "bias")


def _inverse(x: Floats) -> Floats:
    found: Floats = np.float32(1) / (EXP.call(x) + np.float32(1e-9))
    return found


_INVERSE = Function("1/(exp+1e-9)", 1, _inverse)
#: ends of the names of what is not copied -> what it becomes
_FOLDED = {"alpha": EXP, "beta": _INVERSE}


def folded(targets: Sequence[str]) -> Any:
    """Rows as they are, but where a wave is to be bent, the numbers that runtimes multiply by."""

    def make(rows: Sequence[Rows], _config: Config) -> Sequence[Rows]:
        ends = [target.rpartition(".")[2] for target in targets]
        return [Mapped(r, _FOLDED[end]) if end in _FOLDED else r for r, end in zip(rows, ends, strict=True)]

    return make


def group(place: str, source: str, parts: Mapping[str, str]) -> Rule:
    """Tensors of one module, in this order; ``parts`` are ends of names in a checkpoint -> in GGUF."""
    targets = tuple(f"a.gen.wav.{place}{ours}" for ours in parts.values())
    return Rule(targets, tuple(f"{DECODER}.{source}{theirs}" for theirs in parts), folded(targets), first=True)


def both(parts: Mapping[str, str], ends: Sequence[str] = _ENDS) -> dict[str, str]:
    """``parts``, each with weights and biases, or other ``ends``."""
    return {f"{theirs}.{end}": f"{ours}.{end}" for theirs, ours in parts.items() for end in ends}


def flat(rows: Sequence[Rows], _config: Config) -> Sequence[Rows]:
    """A convolution over one frame as a matrix."""
    return [Reshaped(rows[0], rows[0].shape[:-1])]


def books(rows: Sequence[Rows], c: Config) -> Sequence[Rows]:
    """What codes stand for, of which sums and counts were kept in training."""
    sums, counts = rows
    if len(sums.shape) == 3:
        all_codes([sums], c)
    n_rows = int(np.prod(counts.shape))
    return [Averaged(sums, Reshaped(counts, (n_rows, 1)), 1e-5)]


def all_codes(rows: Sequence[Rows], c: Config) -> Sequence[Rows]:
    """Those of each code behind the first, stacked (BadInput: not of 15)."""
    if rows[0].shape[0] != _CODES:
        raise BadInput(f"{c.folder}: there are {rows[0].shape[0]} codes behind the first, runtimes compute {_CODES}")
    return rows


def _quantizer(part: str, layer: str) -> list[Rule]:
    here, book = f"{DECODER}.quantizer.rvq_{part}", f"a.gen.wav.quant.{part}"
    sources = tuple(f"{here}.vq.layers.{layer}._codebook.{name}" for name in ("embedding_sum", "cluster_usage"))
    return [
        Rule((f"{book}.in_proj.weight",), (f"{here}.input_proj.weight",), flat, first=True),
        Rule((f"{book}.out_proj.weight",), (f"{here}.output_proj.weight",), flat, first=True),
        Rule((f"{book}.codebook.weight",), sources, books, first=True),
    ]


LAYER = {
    "input_layernorm.weight": "ln1.weight",
    **{f"self_attn.{part}_proj.weight": f"attn_{ours}.weight" for part, ours in zip("qkvo", ("q", "k", "v", "out"), strict=True)},
    "self_attn_layer_scale.scale": "ls1.weight", "post_attention_layernorm.weight": "ln2.weight",
    **{f"mlp.{part}_proj.weight": f"ffn_{part}.weight" for part in ("gate", "up", "down")},
    "mlp_layer_scale.scale": "ls2.weight",
}  # fmt: skip
_SNAKE = ("alpha", "beta")


def _stage(n: int) -> Rule:
    parts = both({"0": "snake"}, _SNAKE) | both({"1.conv": "conv"})
    for unit in range(3):
        for k in (1, 2):
            parts |= both({f"{unit + 2}.act{k}": f"res.{unit}.act{k}"}, _SNAKE)
            parts |= both({f"{unit + 2}.conv{k}.conv": f"res.{unit}.conv{k}"})
    return group(f"dac.blk.{n}.", f"decoder.{n + 1}.block.", parts)


WAVE = (
    *_quantizer("first", "0"),
    *_quantizer("rest", "{x}"),
    group("", "", both({"pre_conv.conv": "pre_conv"})),
    group("tfm.", "pre_transformer.", both({"input_proj": "in_proj", "output_proj": "out_proj"})),
    group("tfm.", "pre_transformer.", {"norm.weight": "output_norm.weight"}),
    group("tfm.blk.{bid}.", "pre_transformer.layers.{bid}.", LAYER),
    group(
        "up.blk.{bid}.", "upsample.{bid}.",
        both({"0.conv": "conv", "1.dwconv.conv": "dwconv", "1.norm": "norm", "1.pwconv1": "pw1", "1.pwconv2": "pw2"})
        | {"1.gamma": "gamma"},
    ),
    group("dac.", "decoder.", both({"0.conv": "entry"})),
    *(_stage(n) for n in range(4)),
    group("dac.", "decoder.", both({"5": "post_snake"}, _SNAKE)),
    group("dac.", "decoder.", both({"6.conv": "post_conv"})),
)  # fmt: skip
