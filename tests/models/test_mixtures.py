"""Families with experts: stacked in the order of their numbers, from files that have them apart or in one tensor."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import gguf_reader
import numpy as np
import pytest
from small_models import Tensors, changed

import streamconv
from streamconv.errors import BadInput

N = 11  # so that 10 comes before 2 in the file
_PARTS = {"down": "down_proj", "gate": "gate_proj", "up": "up_proj"}


def apart(tensors: Tensors) -> Tensors:
    """Every feed-forward network ``N`` times, each time other values, and a router."""
    for block in range(2):
        at = f"model.layers.{block}.mlp."
        dense = {name: tensors.pop(f"{at}{name}.weight") for name in _PARTS.values()}
        for x in range(N):
            tensors |= {f"{at}experts.{x}.{name}.weight": (kind, words + x) for name, (kind, words) in dense.items()}
        tensors[f"{at}gate.weight"] = dense["up_proj"][0], dense["up_proj"][1][:N]
    return dict(sorted(tensors.items()))


def packed(tensors: Tensors) -> Tensors:
    """The same in the tensors that newer checkpoints have."""
    for block in range(2):
        at = f"model.layers.{block}.mlp.experts."
        parts = {name: [tensors.pop(f"{at}{x}.{name}.weight") for x in range(N)] for name in _PARTS.values()}
        stacks = {name: np.stack([words for _, words in found]) for name, found in parts.items()}
        kind = parts["down_proj"][0][0]
        tensors[f"{at}down_proj"] = kind, stacks["down_proj"]
        tensors[f"{at}gate_up_proj"] = kind, np.concatenate([stacks["gate_proj"], stacks["up_proj"]], axis=1)
    return dict(sorted(tensors.items()))


def config(c: dict[str, Any]) -> None:
    c.update(architectures=["Qwen3MoeForCausalLM"], num_experts=N, num_experts_per_tok=2, moe_intermediate_size=160)


@pytest.fixture
def mixture(data: Path, tmp_path: Path) -> Path:
    return changed(data / "checkpoints" / "qwen3-tied" / "hf", tmp_path / "hf", apart, config)


def converted(source: Path, out: Path, kind: str) -> gguf_reader.Gguf:
    streamconv.convert(source, out, type=kind, threads=1, pre="qwen2")
    return gguf_reader.read(out)


@pytest.mark.parametrize("kind", ["f16", "q8_0"])
def test_experts_are_stacked_in_numeric_order(data: Path, mixture: Path, tmp_path: Path, kind: str) -> None:
    found = converted(mixture, tmp_path / "x.gguf", kind)
    assert found.keys["general.architecture"][1] == "qwen3moe"
    assert [found.keys[f"qwen3moe.expert_{k}"][1] for k in ("count", "used_count", "feed_forward_length")] == [
        N,
        2,
        160,
    ]
    for x in (0, 2, 10):
        one = changed(data / "checkpoints" / "qwen3-tied" / "hf", tmp_path / f"{x}", partial(plus, x=x))
        dense = converted(one, tmp_path / f"{x}.gguf", kind)
        for part in _PARTS:
            stack, alone = found.tensors[f"blk.1.ffn_{part}_exps.weight"], dense.tensors[f"blk.1.ffn_{part}.weight"]
            assert stack.type == alone.type == kind.upper()
            size = len(alone.data)
            assert stack.data[x * size : (x + 1) * size] == alone.data, f"{part} of expert {x}"
    assert found.tensors["blk.0.ffn_gate_inp.weight"].type == "F32"


def plus(tensors: Tensors, x: int) -> None:
    for name, (kind, words) in tensors.items():
        if ".mlp." in name:
            tensors[name] = kind, words + x


def test_experts_in_one_tensor_give_the_same_file(mixture: Path, tmp_path: Path) -> None:
    plain = converted(mixture, tmp_path / "x.gguf", "q8_0")
    other = converted(changed(mixture, tmp_path / "packed", packed), tmp_path / "y.gguf", "q8_0")
    assert {n: t.data for n, t in plain.tensors.items()} == {n: t.data for n, t in other.tensors.items()}


def test_fewer_experts_than_the_configuration_says_are_refused(mixture: Path, tmp_path: Path) -> None:
    source = changed(mixture, tmp_path / "other", config=lambda c: c.update(num_experts=12))
    with pytest.raises(BadInput, match=r"11 experts .*, config\.json says 12"):
        streamconv.plan(source, tmp_path / "x.gguf")


def test_a_block_without_any_feed_forward_network_is_told(mixture: Path, tmp_path: Path) -> None:
    def drop(tensors: Tensors) -> Tensors:
        return {n: t for n, t in tensors.items() if "layers.1.mlp" not in n}

    plan = streamconv.plan(changed(mixture, tmp_path / "other", drop), tmp_path / "x.gguf", pre="qwen2")
    for name in ("down", "gate", "up"):
        assert any(f"'blk.1.ffn_{name}_exps.weight' is missing" in text for text in plan["warnings"])


def test_the_mix_of_types_knows_the_number_of_experts(data: Path, mixture: Path, tmp_path: Path) -> None:
    def eight(c: dict[str, Any]) -> None:
        c["num_experts"] = 8

    def fewer_experts(tensors: Tensors) -> Tensors:
        left = {n: t for n, t in tensors.items() if not any(f"experts.{i}." in n for i in (8, 9, 10))}
        return {n: (kind, words[:8] if n.endswith("mlp.gate.weight") else words) for n, (kind, words) in left.items()}

    fewer = changed(mixture, tmp_path / "8", fewer_experts, eight)
    found = {}
    for source, n in ((mixture, N), (fewer, 8)):
        plan = streamconv.plan(source, tmp_path / f"{n}.gguf", type="Q4_K_M", pre="qwen2")
        found[n] = {t["name"]: t["type"] for t in plan["tensors"]}["blk.0.attn_k.weight"]
    assert found[8] == "Q8_0" != found[N]
