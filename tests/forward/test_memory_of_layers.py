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
