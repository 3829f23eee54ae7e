"""Layers of every architecture against llama.cpp, and what does not change a byte of them."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import numpy as np
import pytest
from make_logits import KEPT, ids_of
from random_models import DATA, model_of, stated

from streamconv import forward
from streamconv.forward import Model
from streamconv.limits import _openblas, one_thread_of_blas
from streamconv.rows import Floats, Rows

#: activations that llama.cpp looks up in a table of half-precision numbers
LOOKED_UP = ("gelu", "gelu_erf")
#: models of several mechanisms: plain, experts, latent heads, streams' neighbours, the delta rule
SOME = ("llama", "qwen2moe", "deepseek3", "gemma4-ple", "gemma4-moe", "qwen3next", "jamba", "falcon-h1")


def run(model: Model, tokens: np.ndarray[Any, Any], **how: Any) -> Floats:
    """The states after the last layer."""
    hidden = forward.embed(model, tokens)
    for number in range(model.n_layers):
        after = np.full_like(hidden, np.nan)
        forward.run_layer(model, number, tokens, hidden, after, **how)
        hidden = after
    return hidden


def chunks_of(n_chunks: int, n_ctx: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 500, (n_chunks, n_ctx)).astype(np.int32)


@pytest.mark.parametrize("name", stated())
def test_logits_are_those_of_llama_cpp(name: str) -> None:
    model = model_of(name)
    ids = ids_of(model.rows["token_embd.weight"].shape[0])
    later = [7] * (80 if "rope_factors_long.weight" in model.rows else 0)  # the recorded context was a longer one
    hidden = run(model, np.array([ids + later], np.int32))
    got = forward.logits(model, hidden[0])[: len(ids), :KEPT]
    with np.load(DATA / "logits.npz") as recorded:
        want = recorded[name]
    bound = 0.02 if model.computes.activation in LOOKED_UP else 1e-4
    assert np.abs(got - want).max() <= bound * want.std()


@pytest.mark.parametrize("name", SOME)
def test_neither_threads_nor_memory_change_a_byte(name: str) -> None:
    model, tokens = model_of(name), chunks_of(40, 32)
    states = run(model, tokens)
    assert np.isfinite(states).all(), "a number of the state was not written"
    usual = states.tobytes()
    assert run(model, tokens, threads=3).tobytes() == usual
    assert run(model, tokens, threads=2, ram=1).tobytes() == usual


def test_a_chunk_does_not_see_the_others() -> None:
    model, tokens = model_of("gemma2"), chunks_of(5, 16)
    together, alone = run(model, tokens), run(model, tokens[3:4])
    np.testing.assert_allclose(together[3], alone[0], rtol=0, atol=2e-5)


def test_long_chunks_are_blocks_of_their_own_and_windows_reach_over_their_pieces() -> None:
    model, tokens = model_of("cohere2"), chunks_of(1, 600)
    assert forward.blocks_of(3, 600) == [slice(0, 1), slice(1, 2), slice(2, 3)]
    whole, cut = run(model, tokens), run(model, tokens[:, :520])
    np.testing.assert_allclose(whole[0, :520], cut[0], rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", ["qwen2moe", "deepseek3", "gemma3-text"])
def test_every_input_of_a_product_is_shown_once_a_block(name: str) -> None:
    model, tokens = model_of(name), chunks_of(40, 32)
    seen, lock = Counter[tuple[str, int, int | None]](), threading.Lock()
    n_rows = Counter[str]()

    def observe(tensor: str, block: int, x: Floats, expert: int | None) -> None:
        with lock:
            seen[tensor, block, expert] += 1
            n_rows[tensor] += len(x)
            weight = model.rows[tensor]
            n_matrices = weight.shape[0] if expert is None and len(weight.shape) == 3 else 1
            assert x.shape[1] == weight.shape[-1] * n_matrices
            assert x.dtype == np.float32

    run(model, tokens, threads=2, observe=observe)
    assert set(seen.values()) == {1}
    products = {n for n in model.rows if n.startswith("blk.") and n.endswith(".weight") and "norm" not in n}
    assert set(n_rows) == products
    used = {layer.n_experts_used for layer in model.layers}
    for tensor, rows in n_rows.items():
        assert rows == tokens.size * (max(used) if "_exps" in tensor else 1)
    assert {block for n, block, expert in seen if expert is None} == {0, 1, 2}


class Given(Rows):
    """Rows of an array."""

    def __init__(self, array: Floats) -> None:
        self.array, self.shape, self.dtype = array, array.shape, "F32"

    def _fill(self, start: int, stop: int, out: Floats) -> None:
        out[...] = self.array[start:stop]


def test_projections_of_the_delta_rule_may_lie_in_one_matrix_head_by_head() -> None:
    model = model_of("qwen3next")
    delta = model.recurrence
    assert delta is not None
    rows = dict(model.rows)
    for name in [n for n in rows if n.endswith("attn_gate.weight")]:
        qkv, z = rows.pop(name.replace("attn_gate", "attn_qkv")), rows.pop(name)
        n_q = delta.n_keys * delta.k_size
        q, k, v = np.split(qkv.read(0, qkv.shape[0]), (n_q, 2 * n_q))
        parts = [part.reshape(delta.n_keys, -1, part.shape[1]) for part in (q, k, v, z.read(0, z.shape[0]))]
        together = np.concatenate(parts, axis=1).reshape(-1, q.shape[1])
        rows[name.replace("attn_gate", "ssm_in")] = Given(together)
    tokens = chunks_of(2, 16)
    other = forward.open_model(rows, model.metadata)
    np.testing.assert_allclose(run(other, tokens), run(model, tokens), atol=1e-5)


def test_states_of_experts_have_room_for_their_inputs_and_sums() -> None:
    assert model_of("llama").width == 64
    assert model_of("qwen2moe").width == 3 * 64
    assert model_of("gemma4-ple").width > 64


def test_blas_has_as_many_threads_afterwards_as_before() -> None:
    found = _openblas()
    if found is None:
        pytest.skip("numpy has no OpenBLAS here")
    get, use = found
    before = get()
    use(2)
    try:
        with one_thread_of_blas():
            assert get() == 1
        assert get() == 2
    finally:
        use(before)
