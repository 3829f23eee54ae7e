"""Query, key and value in one tensor, gate and up of the experts in another: for every family whose runtimes look for these."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys
from small_models import Tensors, changed

import streamconv
from streamconv.check.table import architecture
from streamconv.conversion import Options
from streamconv.conversion.fusing import fused
from streamconv.errors import UsageError
from streamconv.models import Model
from streamconv.rows import Rows, matrix_shape

TOYS = toys.stored()
PARTS = {"attn_qkv": ("attn_q", "attn_k", "attn_v"), "ffn_gate_up_exps": ("ffn_gate_exps", "ffn_up_exps")}


def whole(rows: Rows) -> np.ndarray:
    return np.asarray(rows.read(0, matrix_shape(rows.shape)[0])).reshape(rows.shape)


def takes(model: Model, stem: str) -> bool:
    """Whether loaders look for ``stem`` in such a model, and some block has all its parts."""
    table = architecture(model.arch)
    names = {w.name for w in table.tensors} if table is not None else set()
    return all(f"blk.*.{part}.weight" in names for part in (stem, *PARTS[stem])) and any(
        all(f"blk.{n}.{part}.weight" in model.tensors for part in PARTS[stem]) for n in range(64)
    )


@pytest.mark.parametrize("stem", PARTS)
def test_what_was_apart_lies_one_behind_the_other_in_every_family_that_takes_it(stem: str) -> None:
    option = "fuse_qkv" if stem == "attn_qkv" else "fuse_gate_up_exps"
    done = set()
    for toy in TOYS.values():
        before = toys.built(toy)
        if before.arch in done or not takes(before, stem):
            continue
        done.add(before.arch)
        after = fused(before, Options(**{option: True}))
        gone = before.tensors.keys() - after.tensors.keys()
        made = {name: rows for name, rows in after.tensors.items() if name not in before.tensors}
        assert gone
        assert {name.split(".", 2)[2].partition(".")[0] for name in made} == {stem}
        name, rows = next(iter(made.items()))
        parts = [before.tensors[name.replace(stem, part)] for part in PARTS[stem]]
        expected = np.concatenate([whole(part) for part in parts], axis=1 if stem != "attn_qkv" else 0)
        assert np.array_equal(whole(rows), expected)
        last = [n for n in before.tensors if n in {name.replace(stem, part) for part in PARTS[stem]}][-1]
        others = [n for n in before.tensors if n not in gone or n == last]
        assert [n for n in after.tensors if n not in made or n == name][: others.index(last) + 1][-1] == name
    assert len(done) > (20 if stem == "attn_qkv" else 1)


@pytest.fixture
def qwen2(data: Path) -> Path:
    return data / "checkpoints" / "qwen2-yarn" / "hf"


def names(source: Path, output: Path, **options: Any) -> list[str]:
    return [t["name"] for t in streamconv.plan(source, output, pre="qwen2", **options)["tensors"]]


def test_biases_are_put_together_as_the_matrices_are(qwen2: Path, tmp_path: Path) -> None:
    (out,) = streamconv.convert(qwen2, tmp_path / "x.gguf", type="f32", pre="qwen2", fuse_qkv=True, threads=1)
    (apart,) = streamconv.convert(qwen2, tmp_path / "y.gguf", type="f32", pre="qwen2", threads=1)
    one, three = streamconv.open(out), streamconv.open(apart)
    for kind in ("weight", "bias"):
        parts = [whole(three[f"blk.1.attn_{which}.{kind}"]) for which in "qkv"]
        assert np.array_equal(whole(one[f"blk.1.attn_qkv.{kind}"]), np.concatenate(parts))
    assert not any(".attn_q." in name for name in one)


def test_a_block_that_lacks_one_of_the_biases_stays_as_it_is(qwen2: Path, tmp_path: Path) -> None:
    def without(tensors: Tensors) -> None:
        del tensors["model.layers.0.self_attn.k_proj.bias"]

    source = changed(qwen2, tmp_path / "hf", without)
    facts = streamconv.plan(source, tmp_path / "x.gguf", pre="qwen2", fuse_qkv=True)
    assert {"blk.0.attn_q.weight", "blk.1.attn_qkv.weight"} <= {t["name"] for t in facts["tensors"]}
    assert "--fuse-qkv: 1 blocks stay as they are, such as blk.0.attn_q.weight" in facts["warnings"]


def test_fusing_is_refused_where_no_runtime_looks_for_it(qwen2: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--fuse-gate-up-exps has no effect on this model of architecture 'qwen2'"):
        names(qwen2, tmp_path / "x.gguf", fuse_gate_up_exps=True)
    with pytest.raises(UsageError, match="--fuse-qkv has no effect"):
        names(qwen2, tmp_path / "x.gguf", fuse_qkv=True, vocab_only=True)


def test_what_is_one_tensor_anyway_is_told() -> None:
    model = toys.built(next(toy for toy in TOYS.values() if toys.built(toy).arch == "phi3"))
    after = fused(model, Options(fuse_qkv=True))
    assert list(after.tensors) == list(model.tensors)
    assert after.warnings[-1] == "--fuse-qkv has no effect: attn_qkv is one tensor anyway"


def test_mixes_know_the_fused_tensors(qwen2: Path, tmp_path: Path) -> None:
    facts = streamconv.plan(qwen2, tmp_path / "x.gguf", pre="qwen2", fuse_qkv=True, type="q4_k_m", pure=True)
    kinds = {t["name"]: t["type"] for t in facts["tensors"]}
    assert kinds["blk.0.attn_qkv.weight"] == kinds["blk.0.attn_output.weight"]
