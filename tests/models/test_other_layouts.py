"""Checkpoints that other programs laid out in their own way give the file of the model that they were made from."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf_reader
import numpy as np
import pytest
from small_models import Tensors, changed, read_safetensors

import streamconv

N, HIDDEN, WIDE = 3, 64, 32  # experts, residual stream, feed-forward of an expert
_PARTS = ("gate_proj", "up_proj", "down_proj")
_NEXT = {
    "architectures": ["Qwen3NextForCausalLM"], "model_type": "qwen3_next", "num_hidden_layers": 2, "head_dim": 16,
    "num_attention_heads": 4, "num_key_value_heads": 2, "num_experts": N, "num_experts_per_tok": 2, "moe_intermediate_size": WIDE,
    "shared_expert_intermediate_size": WIDE, "full_attention_interval": 2, "linear_num_key_heads": 2, "linear_key_head_dim": 8,
    "linear_num_value_heads": 4, "linear_value_head_dim": 8, "linear_conv_kernel_dim": 4, "layer_types": None,
}  # fmt: skip
_OSS = {
    "architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss", "num_hidden_layers": 1, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "num_local_experts": N, "num_experts_per_tok": 2, "intermediate_size": WIDE,
    "layer_types": ["sliding_attention"],
}  # fmt: skip


def bf16(values: np.ndarray) -> tuple[str, np.ndarray]:
    """``values``, which must be representable."""
    return "BF16", (np.ascontiguousarray(values, np.float32).view("<u4") >> 16).astype("<u2")


def made(data: Path, folder: Path, stated: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> Path:
    """A checkpoint of eighths, whose tokenizer and other settings are those of a recorded one."""
    at = data / "checkpoints" / "qwen3-tied" / "hf"
    vocabulary = json.loads((at / "config.json").read_text())["vocab_size"]
    shapes = {
        "model.embed_tokens.weight": (vocabulary, HIDDEN), "lm_head.weight": (vocabulary, HIDDEN), "model.norm.weight": (HIDDEN,),
        **shapes,
    }  # fmt: skip
    rng = np.random.default_rng(4)
    tensors = {name: bf16(rng.integers(-8, 8, shape) / 8) for name, shape in sorted(shapes.items())}
    return changed(
        at,
        folder,
        lambda _: tensors,
        lambda c: c.update({"hidden_size": HIDDEN, "tie_word_embeddings": False, **stated}),
    )


def qwen3next(data: Path, folder: Path) -> Path:
    """A block of a delta network and one of attention."""
    shapes: dict[str, tuple[int, ...]] = {}
    for block in range(2):
        at = f"model.layers.{block}."
        shapes |= {f"{at}{norm}_layernorm.weight": (HIDDEN,) for norm in ("input", "post_attention")}
        shapes |= {f"{at}mlp.gate.weight": (N, HIDDEN), f"{at}mlp.shared_expert_gate.weight": (1, HIDDEN)}
        for owner in (*(f"experts.{x}" for x in range(N)), "shared_expert"):
            shapes |= {f"{at}mlp.{owner}.{part}.weight": (WIDE, HIDDEN) for part in _PARTS[:2]}
            shapes[f"{at}mlp.{owner}.down_proj.weight"] = HIDDEN, WIDE
    linear, attention = "model.layers.0.linear_attn.", "model.layers.1.self_attn."
    shapes |= {
        f"{linear}A_log": (4,), f"{linear}dt_bias": (4,), f"{linear}norm.weight": (8,), f"{linear}conv1d.weight": (64, 1, 4),
        f"{linear}in_proj_qkvz.weight": (96, HIDDEN), f"{linear}in_proj_ba.weight": (8, HIDDEN),
        f"{linear}out_proj.weight": (HIDDEN, 32), f"{attention}q_proj.weight": (128, HIDDEN),
        f"{attention}k_proj.weight": (32, HIDDEN), f"{attention}v_proj.weight": (32, HIDDEN),
        f"{attention}o_proj.weight": (HIDDEN, 64), f"{attention}q_norm.weight": (16,), f"{attention}k_norm.weight": (16,),
    }  # fmt: skip
    return made(data, folder, _NEXT, shapes)


def gpt_oss(data: Path, folder: Path) -> Path:
    """A block whose experts are as transformers saves them: inputs for rows, gate and up in alternating columns."""
    at, experts = "model.layers.0.", "model.layers.0.mlp.experts."
    shapes: dict[str, tuple[int, ...]] = {
        f"{at}{norm}_layernorm.weight": (HIDDEN,) for norm in ("input", "post_attention")
    }
    for name, n in (("q", 64), ("k", 32), ("v", 32)):
        shapes |= {f"{at}self_attn.{name}_proj.weight": (n, HIDDEN), f"{at}self_attn.{name}_proj.bias": (n,)}
    shapes |= {
        f"{at}self_attn.o_proj.weight": (HIDDEN, 64), f"{at}self_attn.o_proj.bias": (HIDDEN,), f"{at}self_attn.sinks": (4,),
        f"{at}mlp.router.weight": (N, HIDDEN), f"{at}mlp.router.bias": (N,), f"{experts}down_proj": (N, WIDE, HIDDEN),
        f"{experts}down_proj_bias": (N, HIDDEN), f"{experts}gate_up_proj": (N, HIDDEN, 2 * WIDE),
        f"{experts}gate_up_proj_bias": (N, 2 * WIDE),
    }  # fmt: skip
    return made(data, folder, _OSS, shapes)


def stacked(tensors: Tensors) -> Tensors:
    """Experts as MLX stacks them."""
    found: Tensors = {}
    for name, (kind, words) in tensors.items():
        stack = re.sub(r"\.experts\.0\.", ".switch_mlp.", name)
        parts = [tensors[name.replace("experts.0.", f"experts.{x}.")][1] for x in range(N)] if stack != name else []
        if ".experts." not in stack:
            found[stack] = (kind, np.stack(parts)) if parts else (kind, words)
    return dict(sorted(found.items()))


def of_mlx(tensors: Tensors) -> Tensors:
    """A whole model as MLX saves it: channels last, and what norms multiply by."""
    for name, (_, words) in tensors.items():
        if name.endswith("conv1d.weight"):
            tensors[name] = "BF16", np.ascontiguousarray(np.moveaxis(words, 2, 1))
        elif name.endswith("norm.weight") and "linear_attn" not in name:
            tensors[name] = bf16((words.astype("<u4") << 16).view(np.float32) + 1)
    return stacked(tensors)


def quantized_experts(tensors: Tensors) -> Tensors:
    """Stacks of experts whose codes are all one, as MLX quantizes them."""
    for name in [name for name in tensors if ".switch_mlp." in name]:
        shape = tensors.pop(name)[1].shape
        tensors[name] = "U32", np.full((*shape[:-1], shape[-1] // 8), 0x11111111, "<u4")
        groups = (*shape[:-1], shape[-1] // 32)
        for part, value in (("scales", 0.5), ("biases", -2.0)):
            tensors[name.replace("weight", part)] = bf16(np.full(groups, value))
    return dict(sorted(tensors.items()))


def as_modules(tensors: Tensors) -> Tensors:
    """The experts of a gpt-oss as linear layers of their own, which adapters and four-bit floats need."""
    found: Tensors = {}
    for name, (kind, words) in tensors.items():
        module = re.sub(r"(?<=experts\.)(\w+_proj)(_bias)?$", r"\1s", name)
        for x in range(N if module != name else 0):
            is_bias = name.endswith("_bias")
            found[f"{module}.{x}.{'bias' if is_bias else 'weight'}"] = (
                kind, words[x] if is_bias else np.ascontiguousarray(words[x].T),
            )  # fmt: skip
        if module == name:
            found[name.replace("mlp.router.", "mlp.router.linear.")] = kind, words
    return dict(sorted(found.items()))


def converted(source: Path, out: Path) -> dict[str, tuple[tuple[int, ...], bytes]]:
    streamconv.convert(source, out, type="bf16", threads=1, pre="qwen2")
    return {name: (t.ne, t.data) for name, t in gguf_reader.read(out).tensors.items()}


@pytest.mark.parametrize(("make", "layout"), [(qwen3next, stacked), (qwen3next, of_mlx), (gpt_oss, as_modules)])
def test_another_layout_gives_the_tensors_of_the_model(
    data: Path, tmp_path: Path, make: Callable[[Path, Path], Path], layout: Callable[[Tensors], Tensors]
) -> None:
    source = make(data, tmp_path / "hf")
    other = changed(source, tmp_path / "other", layout)
    assert read_safetensors(other / "model.safetensors").keys() != read_safetensors(source / "model.safetensors").keys()
    assert converted(other, tmp_path / "other.gguf") == converted(source, tmp_path / "x.gguf")


def test_experts_that_mlx_stacked_and_quantized_are_decoded(data: Path, tmp_path: Path) -> None:
    source = changed(qwen3next(data, tmp_path / "hf"), tmp_path / "mlx", lambda t: quantized_experts(of_mlx(t)))
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "quantization": {"bits": 4, "group_size": 32}}))
    found = converted(source, tmp_path / "x.gguf")
    assert found["blk.0.ffn_down_exps.weight"] == (
        (WIDE, HIDDEN, N),
        bf16(np.full(N * HIDDEN * WIDE, -1.5))[1].tobytes(),
    )


def further(tensors: Tensors) -> Tensors:
    """With a block that predicts a further token, a copy of the one of attention."""
    copies = {n.replace("model.layers.1.", "mtp.layers.0."): t for n, t in tensors.items() if ".layers.1." in n}
    norms = {
        f"mtp.{name}.weight": tensors["model.norm.weight"]
        for name in ("norm", "pre_fc_norm_embedding", "pre_fc_norm_hidden")
    }
    return {**tensors, **copies, **norms, "mtp.fc.weight": bf16(np.ones((HIDDEN, 2 * HIDDEN)))}


@pytest.mark.parametrize(("stated", "there"), [(1, False), (0, True), (2, True)])
def test_blocks_that_predict_further_tokens_are_as_many_as_there_are(
    data: Path, tmp_path: Path, stated: int, there: bool
) -> None:
    source = changed(
        qwen3next(data, tmp_path / "hf"), tmp_path / "other", further if there else lambda t: t,
        lambda c: c.update(mtp_num_hidden_layers=stated),
    )  # fmt: skip
    notes = streamconv.plan(source, tmp_path / "x.gguf", type="bf16", pre="qwen2")["warnings"]
    converted(source, tmp_path / "x.gguf")
    keys = gguf_reader.read(tmp_path / "x.gguf").keys
    assert keys["qwen3next.block_count"][1] == 2 + there
    assert keys.get("qwen3next.nextn_predict_layers", ("", 0))[1] == there
    told = [note for note in notes if "mtp_num_hidden_layers" in note]
    assert len(told) == 1
    assert f"is {stated}, but" in told[0]
    assert not any("is missing" in note for note in notes)


def test_no_note_is_given_where_they_are_as_many_as_stated(data: Path, tmp_path: Path) -> None:
    source = changed(
        qwen3next(data, tmp_path / "hf"), tmp_path / "other", further, lambda c: c.update(mtp_num_hidden_layers=1)
    )
    assert not any("mtp" in note for note in streamconv.plan(source, tmp_path / "x.gguf", pre="qwen2")["warnings"])
