"""Parts of the arithmetic against what they are by definition."""

from __future__ import annotations

import math

import numpy as np
import pytest

from streamconv.forward import attention, delta, feed, numeric, state_space
from streamconv.forward.layer import Layer
from streamconv.forward.matmul import panel_bytes, panel_rows
from streamconv.forward.rope import Rope, rotate_
from streamconv.rows import Floats


def random(*shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


@pytest.mark.parametrize("by_row", [False, True])
@pytest.mark.parametrize("n_ctx", [1, 63, 64, 150])
def test_steps_of_the_delta_rule_give_what_token_after_token_does(n_ctx: int, by_row: bool) -> None:
    n, n_heads, size = 2 * n_ctx, 3, 8
    q, k, v = random(n, n_heads, size), random(n, n_heads, size, seed=1), random(n, n_heads, 6, seed=2)
    k /= np.linalg.norm(k, axis=-1, keepdims=True)
    decay = -np.abs(random(n, n_heads, size if by_row else 1, seed=3)) * 10
    rate = numeric.sigmoid(random(n, n_heads, 1, seed=4))
    want = np.empty(v.shape)
    for t in range(n):
        if t % n_ctx == 0:
            state = np.zeros((n_heads, 6, size))
        state *= np.exp(decay[t])[:, None, :]
        wrong = v[t] - np.einsum("hvk,hk->hv", state, k[t])
        state += np.einsum("hv,hk->hvk", wrong * rate[t], k[t])
        want[t] = np.einsum("hvk,hk->hv", state, q[t])
    np.testing.assert_allclose(delta._recurrent(q, k, v, decay, rate, n_ctx), want, atol=1e-4)


@pytest.mark.parametrize("n_ctx", [1, 63, 64, 150])
def test_steps_of_heads_that_decay_give_what_token_after_token_does(n_ctx: int) -> None:
    n, n_heads, n_groups, size = 2 * n_ctx, 6, 2, 8
    q, k, v = random(n, n_groups, size), random(n, n_groups, size, seed=1), random(n, n_heads, 5, seed=2)
    decay = -np.abs(random(n, n_heads, seed=3))
    want = np.empty(v.shape)
    for t in range(n):
        if t % n_ctx == 0:
            state = np.zeros((n_heads, 5, size))
        state *= np.exp(decay[t])[:, None, None]
        state += np.einsum("hv,hk->hvk", v[t], np.repeat(k[t], 3, axis=0))
        want[t] = np.einsum("hvk,hk->hv", state, np.repeat(q[t], 3, axis=0))
    np.testing.assert_allclose(state_space.decaying(q, k, v, decay, n_ctx), want, atol=1e-4)


def layer_of(**facts: int | bool) -> Layer:
    usual = {"number": 0, "mixers": ("attention",), "feeds": True, "n_heads": 4, "n_kv": 2, "k_size": 8, "v_size": 8}
    return Layer(**({**usual, "window": 0, "scale": 0.3, "cap": 0.0, "rope": None} | facts))  # type: ignore[arg-type]


def test_windows_that_begin_at_multiples_are_parts_that_do_not_see_each_other() -> None:
    q, k, v = random(600, 4, 8), random(600, 2, 8, seed=1), random(600, 2, 8, seed=2)
    got = attention.scored(q, k, v, layer_of(window=150, chunked=True), 600)
    np.testing.assert_allclose(got, attention.scored(q, k, v, layer_of(), 150), atol=1e-6)


def test_gelu_by_the_error_function_is_exact_to_float32() -> None:
    x = np.linspace(-12, 12, 4801, dtype=np.float32)
    want = [v / 2 * (1 + math.erf(v / math.sqrt(2))) for v in x.astype(np.float64)]
    np.testing.assert_allclose(numeric.gelu_erf_(x.copy()), want, atol=2e-6)


def test_functions_of_very_large_numbers_are_finite_and_say_nothing() -> None:
    x = np.array([-1e30, -200, -90, 0, 90, 200, 1e30], np.float32)
    with np.errstate(all="raise", under="ignore"):
        assert np.isfinite(numeric.silu_(x.copy())).all()
        assert np.isfinite(numeric.sigmoid(x)).all()
        assert np.isfinite(numeric.softmax_(x.copy()[None])).all()


@pytest.mark.parametrize("halves", [False, True])
def test_products_of_rotated_vectors_depend_on_how_far_apart_they_are(halves: bool) -> None:
    rope = Rope(halves, 6, 100.0)
    cos, sin = rope.tables(50, None)
    x = np.empty((1, 50, 2, 8), np.float32)
    x[0, :] = random(2, 8)
    rotate_(x, cos, sin, rope)
    products = x[0, :, 0] @ x[0, :, 1].T
    np.testing.assert_allclose(np.diag(products, 3), np.diag(products, 3)[0], atol=1e-5)
    np.testing.assert_allclose(x[0, 7, 0, 6:], random(2, 8)[0, 6:])


def test_yarn_keeps_fast_frequencies_and_stretches_slow_ones() -> None:
    plain, stretched = Rope(True, 64, 10000.0), Rope(True, 64, 10000.0, 1 / 8, True, original=2048)
    (_, sin), (_, slow) = plain.tables(2, None), stretched.tables(2, None)
    np.testing.assert_allclose(slow[1, :8], sin[1, :8], rtol=1e-6)
    np.testing.assert_allclose(np.arcsin(slow[1, -4:]) * 8, np.arcsin(sin[1, -4:]), rtol=1e-3)


def test_a_sink_takes_part_of_the_sum_only() -> None:
    shares = numeric.softmax_(np.zeros((1, 1, 3), np.float32), np.zeros((1, 1, 1), np.float32))
    np.testing.assert_allclose(shares, 0.25)


@pytest.mark.parametrize("n_cols", [1, 64, 4096, 5000, 8192, 28672])
def test_a_panel_has_room_for_rows_of_any_narrower_weight(n_cols: int) -> None:
    for narrower in {1, 64, 4096, 8191, n_cols} & set(range(n_cols + 1)):
        assert panel_rows(narrower) * narrower * 4 <= panel_bytes(n_cols)
        assert panel_rows(narrower) >= 512


def test_groups_of_experts_are_chosen_by_their_best_or_their_best_two() -> None:
    shares = np.array([[0.9, 0.0, 0.6, 0.5]], np.float32)
    hidden = -np.inf
    np.testing.assert_array_equal(feed._of_best_groups(shares, 2, 1, 1), np.float32([[0.9, 0, hidden, hidden]]))
    np.testing.assert_array_equal(feed._of_best_groups(shares, 2, 1, 2), np.float32([[hidden, hidden, 0.6, 0.5]]))
