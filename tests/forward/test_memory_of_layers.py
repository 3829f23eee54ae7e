"""Memory that a layer takes, whatever the number of tokens."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from streamconv import forward
from streamconv.metadata import Metadata
from streamconv.progress import anonymous_memory
from streamconv.rows import Floats, Rows

D, INNER, N_CTX = 1024, 4096, 512


class Small(Rows):
    """The same small number everywhere, of which reading takes no memory."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape, self.dtype = shape, "F32"

    def _fill(self, start: int, stop: int, out: Floats) -> None:
        out[...] = 0.01


def wide(experts: int) -> forward.Model:
    """One layer, of 1024 numbers a token."""
    inner = {"ffn_gate_exps": (experts, 512, D), "ffn_up_exps": (experts, 512, D), "ffn_down_exps": (experts, D, 512)}
    plain = {"ffn_gate": (INNER, D), "ffn_up": (INNER, D), "ffn_down": (D, INNER)}
    shapes = {
        "attn_q": (D, D),
        "attn_k": (256, D),
        "attn_v": (256, D),
        "attn_output": (D, D),
        "attn_norm": (D,),
        "ffn_norm": (D,),
    }
    shapes |= inner | {"ffn_gate_inp": (experts, D)} if experts else plain
    rows: dict[str, Rows] = {f"blk.0.{name}.weight": Small(shape) for name, shape in shapes.items()}
    rows |= {"token_embd.weight": Small((64, D)), "output_norm.weight": Small((D,))}
    keys, arch = Metadata(), "qwen3moe" if experts else "llama"
    keys.string("general.architecture", arch)
    counts = {"block_count": 1, "embedding_length": D, "attention.head_count": 8, "attention.head_count_kv": 2}
    for key, count in (counts | ({"expert_count": experts, "expert_used_count": 2} if experts else {})).items():
        keys.u32(f"{arch}.{key}", count)
    keys.f32(f"{arch}.attention.layer_norm_rms_epsilon", 1e-5)
    return forward.open_model(rows, keys)


def remembering(kind: str) -> forward.Model:
    """One layer that keeps states, of 1024 numbers a token."""
    n_inner, n_states, n_heads = 2 * D, 16 if kind == "mamba" else 128, 16
    ssm = {"state_size": n_states, "inner_size": n_inner, "conv_kernel": 4, "time_step_rank": n_heads, "group_count": 1}
    keys = {"block_count": 1, "embedding_length": D, "attention.head_count": n_heads}
    keys |= {"kda.head_dim": 128} if kind == "kimi-linear" else {f"ssm.{key}": count for key, count in ssm.items()}
    if kind == "mamba":
        shapes = {
            "ssm_in.weight": (2 * n_inner, D), "ssm_conv1d.weight": (n_inner, 4), "ssm_x.weight": (64 + 2 * n_states, n_inner),
            "ssm_dt.weight": (n_inner, 64), "ssm_dt.bias": (n_inner,), "ssm_a": (n_inner, n_states), "ssm_d": (n_inner,),
            "ssm_out.weight": (D, n_inner),
        }  # fmt: skip
    elif kind == "mamba2":
        shapes = {
            "ssm_in.weight": (2 * n_inner + 2 * n_states + n_heads, D), "ssm_conv1d.weight": (n_inner + 2 * n_states, 4),
            "ssm_dt.bias": (n_heads,), "ssm_a": (n_heads, 1), "ssm_d": (n_heads, 1), "ssm_norm.weight": (1, n_inner),
            "ssm_out.weight": (D, n_inner),
        }  # fmt: skip
    else:
        both = ("weight", (128, D)), ("weight", (n_inner, 128))
        shapes = {f"ssm_{x}_{part}.{end}": shape for x in "fg" for part, (end, shape) in zip("ab", both, strict=True)}
        shapes |= {f"attn_{part}.weight": (n_inner, D) for part in "qkv"}
        shapes |= {f"ssm_conv1d_{part}.weight": (n_inner, 4) for part in "qkv"}
        shapes |= {
            "ssm_beta.weight": (n_heads, D), "ssm_dt.bias": (n_inner,), "ssm_a": (n_heads, 1), "ssm_norm.weight": (128,),
            "attn_output.weight": (D, n_inner), "ffn_up.weight": (D, D), "ffn_gate.weight": (D, D), "ffn_down.weight": (D, D),
        }  # fmt: skip
    rows: dict[str, Rows] = {f"blk.0.{name}": Small(shape) for name, shape in shapes.items()}
    rows |= {
        "token_embd.weight": Small((64, D)),
        "output_norm.weight": Small((D,)),
        "blk.0.attn_norm.weight": Small((D,)),
    }
    metadata = Metadata()
    metadata.string("general.architecture", kind)
    for key, count in keys.items():
        metadata.u32(f"{kind}.{key}", count)
    metadata.f32(f"{kind}.attention.layer_norm_rms_epsilon", 1e-5)
    return forward.open_model(rows, metadata)


def peak_of(model: forward.Model, n_chunks: int, ram: int, folder: Path) -> int:
    """Bytes of RssAnon that a layer takes; its states are in files."""
    before, after = (
        np.memmap(folder / name, np.float32, "w+", shape=(n_chunks, N_CTX, model.width)) for name in ("before", "after")
    )
    before[...] = np.random.default_rng(0).standard_normal(before.shape, np.float32)
    tokens = np.zeros((n_chunks, N_CTX), np.int32)
    usual = peak = anonymous_memory()
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, anonymous_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        forward.run_layer(model, 0, tokens, before, after, ram=ram, threads=2)
    finally:
        done.set()
        watcher.join()
    return peak - usual


@pytest.mark.slow
@pytest.mark.parametrize("experts", [0, 8])
@pytest.mark.parametrize("mib", [128, 256])
def test_a_layer_takes_no_more_memory_than_it_may(experts: int, mib: int, tmp_path: Path) -> None:
    model = wide(experts)
    peak_of(model, 1, mib << 20, tmp_path)
    assert peak_of(model, 8, mib << 20, tmp_path) <= mib << 20


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mamba", "mamba2", "kimi-linear"])
def test_a_layer_that_keeps_states_takes_no_more_memory_than_it_may(kind: str, tmp_path: Path) -> None:
    model = remembering(kind)
    peak_of(model, 1, 256 << 20, tmp_path)
    assert peak_of(model, 8, 256 << 20, tmp_path) <= 256 << 20
