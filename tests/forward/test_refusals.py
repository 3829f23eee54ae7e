"""What a model states and is not computed is refused by its name, before a weight is read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from random_models import Numbers, metadata_of, model_of, stated

from streamconv.errors import BadInput, UsageError
from streamconv.forward import embed, open_model, refuse_tokens


def opened(name: str, keys: dict[str, Any] | None = None, tensors: dict[str, Any] | None = None) -> None:
    """Open a model with some keys and tensors changed."""
    facts = stated()[name]
    shapes = facts["tensors"] | (tensors or {})
    rows = {n: Unread(n, tuple(shape)) for n, shape in shapes.items() if shape is not None}
    changed = {k: v for k, v in (facts["keys"] | (keys or {})).items() if v is not None}
    open_model(rows, metadata_of(changed), "model.gguf")


class Unread(Numbers):
    """Rows that nobody may read."""

    def _fill(self, start: int, stop: int, out: object) -> None:
        raise AssertionError(f"{self.name} was read")


@pytest.mark.parametrize("name", stated())
def test_no_weight_is_read_before_the_first_layer(name: str) -> None:
    opened(name)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"keys": {"general.architecture": ["STRING", "bert"]}}, "architecture 'bert'"),
        (
            {"keys": {"llama.attention.relative_buckets_count": ["UINT32", 32]}},
            "llama.attention.relative_buckets_count",
        ),
        ({"keys": {"llama.attention.causal": ["BOOL", False]}}, "attention.causal is false"),
        ({"keys": {"llama.rope.scaling.type": ["STRING", "spiral"]}}, "rope.scaling.type 'spiral'"),
        ({"keys": {"llama.embedding_length": None}}, "llama.embedding_length is not there"),
        ({"keys": {"llama.block_count": ["UINT32", 0]}}, "llama.block_count states 0 layers"),
        (
            {"keys": {"general.architecture": None, "general.type": ["STRING", "imatrix"]}},
            "model.gguf is no model: it states imatrix",
        ),
        ({"keys": {"llama.block_count": ["STRING", "two"]}}, "llama.block_count is 'two', which is not a number"),
        ({"tensors": {"blk.1.attn_sub_norm.weight": [64]}}, "blk.1.attn_sub_norm.weight"),
        ({"tensors": {"cls.weight": [64, 64]}}, "cls.weight"),
        ({"tensors": {"token_embd.weight": None}}, "token_embd.weight"),
        ({"tensors": {"blk.1.attn_k.weight": None}}, "there is no tensor blk.1"),
        ({"tensors": {"blk.0.ffn_down.weight": None}}, "there is no tensor blk.0.ffn_down.weight"),
        ({"keys": {"llama.attention.head_count_kv": ["UINT32", 3]}}, "heads for 3"),
        ({"keys": {"llama.rope.dimension_count": ["UINT32", 18]}}, "18 numbers of a head of 16"),
        ({"tensors": {"blk.0.attn_k.weight": [48, 64]}}, "blk.0.attn_k.weight has the shape [48, 64]"),
        ({"tensors": {"blk.1.attn_norm.weight": [63]}}, "blk.1.attn_norm.weight has the shape [63]"),
    ],
)
def test_what_is_not_computed_is_named(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(BadInput) as refused:
        opened("llama", **changes)
    assert named in str(refused.value)


def test_a_gate_that_is_not_known_is_refused() -> None:
    with pytest.raises(BadInput, match="expert_gating_func 4"):
        opened("qwen3moe", {"qwen3moe.expert_gating_func": ["UINT32", 4]})


def test_scaled_positions_of_a_model_that_rotates_nothing_are_passed_over() -> None:
    opened("jamba", {"jamba.rope.scaling.type": ["STRING", "spiral"], "jamba.rope.scaling.factor": ["FLOAT32", 4.0]})


def test_llama_4_without_windows_is_refused() -> None:
    with pytest.raises(BadInput, match=r"llama4\.attention\.sliding_window is 0"):
        opened("llama4", {"llama4.attention.sliding_window": ["UINT32", 0]})


def test_tokens_and_positions_that_cannot_be_computed_are_refused() -> None:
    model = model_of("gpt2")
    n_tokens, n_positions = (model.rows[f"{name}_embd.weight"].shape[0] for name in ("token", "position"))
    refuse_tokens(model, np.full((1, n_positions), n_tokens - 1, np.int32))
    with pytest.raises(UsageError, match=f"embeddings for {n_positions} positions"):
        embed(model, np.zeros((1, n_positions + 1), np.int32))
    chosen = model_of("deepseek32")
    refuse_tokens(chosen, np.zeros((1, 64), np.int32))
    with pytest.raises(UsageError, match="sees 64 others at most"):
        refuse_tokens(chosen, np.zeros((1, 65), np.int32))
    with pytest.raises(BadInput, match=f"makes the token {n_tokens}, but it has weights for {n_tokens} tokens"):
        embed(model, np.full((1, 4), n_tokens, np.int32))


def test_keys_that_say_nothing_are_not_refused() -> None:
    opened("llama", {"llama.some.feature": ["BOOL", False], "llama.other.sizes": ["ARRAY", [0, 0], "INT32"]})
