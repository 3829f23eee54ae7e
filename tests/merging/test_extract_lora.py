"""Adapters extracted from two models: as good as any of their rank can be, and what comes out of applying them again."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from merge_cases import floats, values_of, write_model
from small_models import read_safetensors
from test_crew import helped

from streamconv import cli, sources
from streamconv.errors import BadInput, UsageError
from streamconv.merging import lora
from streamconv.merging.extraction import Extraction, ModuleChoice, open_extraction
from streamconv.merging.extraction import factors as factoring
from streamconv.merging.extraction.factors import LeftColumns, LeftRows, RightRows, Settings
from streamconv.rows import Bytes, Floats
from streamconv.sources.checkpoint import Checkpoint
from streamconv.workers import Workers

P = "base_model.model."
LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "tie_word_embeddings": False}
SHAPES: dict[str, tuple[int, ...]] = {
    "model.embed_tokens.weight": (30, 16),
    "model.layers.0.self_attn.q_proj.weight": (16, 16),
    "model.layers.0.self_attn.q_proj.bias": (16,),
    "model.layers.0.self_attn.k_proj.weight": (6, 16),
    "model.layers.0.mlp.down_proj.weight": (16, 40),
    "model.layers.0.input_layernorm.weight": (16,),
    "model.norm.weight": (16,),
    "lm_head.weight": (30, 16),
}


class Matrix:
    """A row source in memory that counts how often it is read."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values.astype("<f4")
        self.shape = values.shape
        self.dtype = "F32"
        self.n_read = 0

    def read(self, start: int, stop: int, out: Floats | None = None) -> Floats:
        self.n_read += stop - start
        if out is None:
            return self.values[start:stop].copy()
        out[...] = self.values[start:stop]
        return out

    def stored(self, start: int, stop: int) -> Bytes | None:
        return None

    def prefetch(self, start: int, stop: int) -> None: ...

    def release(self, start: int, stop: int) -> None: ...


def models(folder: Path, shapes: Mapping[str, tuple[int, ...]] = SHAPES, config: Mapping[str, Any] = LLAMA) -> Path:
    """``base`` and ``tuned`` below ``folder``."""
    for seed, name in enumerate(("base", "tuned")):
        tensors = {}
        for n, (key, shape) in enumerate(shapes.items()):
            values = np.random.default_rng(n).standard_normal(shape)
            tensors[key] = (values + 0.1 * seed * np.random.default_rng([1, n]).standard_normal(shape)).astype("<f4")
        write_model(folder / name, tensors, config)
    return folder


def extract(folder: Path, rank: int = 64, **choice: Any) -> Checkpoint:
    return open_extraction(
        sources.open_checkpoint(folder / "base"),
        sources.open_checkpoint(folder / "tuned"),
        Extraction(ModuleChoice(rank, **choice)),
    )


def applied(folder: Path, adapter: Checkpoint) -> Checkpoint:
    return lora.with_adapter(sources.open_checkpoint(folder / "base"), adapter)


def differences(folder: Path, adapter: Checkpoint) -> dict[str, float]:
    """How far every tensor of base and adapter is from the tuned one's, relative to its size."""
    tuned, found = sources.open_checkpoint(folder / "tuned"), applied(folder, adapter)
    assert set(found.tensors) == set(tuned.tensors)
    return {
        name: float(np.abs(values_of(found.tensors[name]) - values_of(rows)).max() / np.abs(values_of(rows)).max())
        for name, rows in tuned.tensors.items()
    }


def error(difference: np.ndarray, rank: int, **settings: Any) -> tuple[float, float]:
    """The error of the factors, and the least possible one (Eckart and Young)."""
    zeros = Matrix(np.zeros_like(difference))
    right = RightRows("x", zeros, Matrix(difference), Settings(rank, **settings))
    product = LeftRows(right).read(0, len(difference)).astype(np.float64) @ right.read(0, right.shape[0])
    values = np.linalg.svd(difference, compute_uv=False)
    return float(np.linalg.norm(difference - product)), float(np.sqrt((values[rank:] ** 2).sum()))


@pytest.mark.parametrize(("shape", "rank"), [((40, 24), 5), ((24, 40), 5), ((24, 24), 1), ((7, 300), 3)])
@pytest.mark.parametrize("distribute", [True, False])
def test_no_factors_of_the_rank_are_better(shape: tuple[int, int], rank: int, distribute: bool) -> None:
    found, least = error(np.random.default_rng(0).standard_normal(shape), rank, distribute=distribute)
    assert found == pytest.approx(least, rel=1e-6)


@pytest.mark.parametrize("shape", [(260, 200), (200, 260)])
@pytest.mark.parametrize("decay", [1.0, 0.99, 0.9])
def test_subspaces_come_as_near_as_the_exact_way(
    shape: tuple[int, int], decay: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(factoring, "EXACT", 16)
    rng = np.random.default_rng(0)
    short = min(shape)
    left, right = (np.linalg.qr(rng.standard_normal((n, short)))[0] for n in shape)
    found, least = error((left * decay ** np.arange(short)) @ right.T, 12)
    assert found == pytest.approx(least, rel=1e-4)


def test_factors_are_the_same_for_any_threads_and_after_being_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(factoring, "EXACT", 16)
    monkeypatch.setattr(factoring, "_TILE", 1 << 12)
    tuned, base = (Matrix(np.random.default_rng(n).standard_normal((150, 120))) for n in range(2))
    values = []
    for helpers in range(3):
        workers, right = Workers(), RightRows("x", base, tuned, Settings(8))
        with helped(workers, helpers):
            values.append(right.measure(workers))
        right.measured(json.loads(json.dumps(values[-1])))
        left = LeftRows(right)
        rows = left.read(0, 150)
        np.testing.assert_array_equal(np.concatenate([left.read(a, a + 1) for a in range(150)]), rows)
        np.testing.assert_array_equal(LeftColumns(right).read(0, 8), rows.T)
        right.measured(None)
        np.testing.assert_array_equal(left.read(7, 9), rows[7:9])
    assert values[0] == values[1] == values[2]


def test_equal_matrices_give_factors_of_zero() -> None:
    same = Matrix(np.random.default_rng(0).standard_normal((20, 30)))
    found = RightRows("x", same, same, Settings(4))
    assert not values_of(found).any()
    assert not values_of(LeftRows(found)).any()


def test_small_singular_values_are_left_out_on_demand() -> None:
    left, right = (np.linalg.qr(np.random.default_rng(n).standard_normal((20, 20)))[0] for n in range(2))
    difference = (left * np.array([3.0, 2.0, *[0.5] * 18])) @ right.T
    found = RightRows("x", Matrix(np.zeros((20, 20))), Matrix(difference), Settings(4, epsilon=1.0))
    assert np.count_nonzero(np.abs(values_of(found)).max(axis=1)) == 2


def test_nan_is_refused() -> None:
    broken = np.zeros((4, 4))
    broken[1, 2] = np.nan
    found = RightRows("my tensor", Matrix(np.zeros((4, 4))), Matrix(broken), Settings(2))
    with pytest.raises(BadInput, match=r"'my tensor'.* not finite"):
        found.measure(Workers())


def test_a_whole_adapter_gives_the_tuned_model_back(tmp_path: Path) -> None:
    adapter = extract(models(tmp_path))
    assert max(differences(tmp_path, adapter).values()) < 2e-6
    assert adapter.config["bias"] == "all"
    assert sorted(adapter.config["target_modules"]) == ["down_proj", "k_proj", "lm_head", "q_proj"]
    assert sorted(adapter.config["modules_to_save"]) == ["embed_tokens", "input_layernorm", "norm"]
    assert adapter.config["r"] == adapter.config["lora_alpha"] == 16
    assert adapter.config["rank_pattern"] == adapter.config["alpha_pattern"] == {"k_proj": 6}
    assert f"{P}model.layers.0.self_attn.q_proj.base_layer.bias" in adapter.tensors


def test_embeddings_become_factors_on_demand(tmp_path: Path) -> None:
    adapter = extract(models(tmp_path), embed_lora=True)
    assert max(differences(tmp_path, adapter).values()) < 2e-6
    assert adapter.tensors[f"{P}model.embed_tokens.lora_embedding_A"].shape == (16, 30)
    assert adapter.tensors[f"{P}model.embed_tokens.lora_embedding_B"].shape == (16, 16)


def test_layers_of_gpt2_are_the_other_way_round(tmp_path: Path) -> None:
    shapes = {"transformer.wte.weight": (20, 8), "transformer.h.0.attn.c_attn.weight": (8, 24)}
    adapter = extract(models(tmp_path, shapes, {"model_type": "gpt2"}))
    assert adapter.tensors[f"{P}transformer.h.0.attn.c_attn.lora_A.weight"].shape == (8, 8)
    assert adapter.tensors[f"{P}transformer.h.0.attn.c_attn.lora_B.weight"].shape == (24, 8)
    assert adapter.config["fan_in_fan_out"] is True
    assert max(differences(tmp_path, adapter).values()) < 2e-6


def test_modules_are_chosen_by_expressions_and_saved_by_name(tmp_path: Path) -> None:
    models(tmp_path)
    names = set(extract(tmp_path, include="self_attn", exclude="k_proj", save=("q_proj",)).tensors)
    assert names == {f"{P}model.layers.0.self_attn.q_proj.{kind}" for kind in ("weight", "bias")}
    with pytest.raises(UsageError, match="nothing is left"):
        extract(tmp_path, include="no such module")
    with pytest.raises(UsageError, match="not a valid regular expression"):
        extract(tmp_path, include="(")


def test_a_name_that_means_other_modules_too_is_written_in_full(tmp_path: Path) -> None:
    shapes = {**SHAPES, "model.layers.1.self_attn.q_proj.weight": (16, 16)}
    config = extract(models(tmp_path, shapes), include=r"layers\.0\.self_attn\.q|^model.norm").config
    assert config["target_modules"] == ["model.layers.0.self_attn.q_proj"]
    assert config["modules_to_save"] == ["model.norm"]  # input_layernorm ends with norm, too


def test_a_resized_vocabulary_and_its_tokenizer_are_saved(tmp_path: Path) -> None:
    models(tmp_path)
    grown = {name: (32, 16) for name in SHAPES if SHAPES[name] == (30, 16)}
    models(tmp_path / "more", {**SHAPES, **grown})
    os.rename(tmp_path / "tuned", tmp_path / "old")
    os.rename(tmp_path / "more" / "tuned", tmp_path / "tuned")
    for name, text in (("base", "{}"), ("tuned", '{"model": {"vocab": {}}}')):
        (tmp_path / name / "tokenizer.json").write_text(text)
    adapter = extract(tmp_path)
    assert adapter.tensors[f"{P}lm_head.weight"].shape == (32, 16)
    assert adapter.text("tokenizer.json") == '{"model": {"vocab": {}}}'
    assert any("32 rows, 30 in the base" in text for text in adapter.warnings)
    assert applied(tmp_path, adapter).config["vocab_size"] == 32


def test_tied_models_save_the_embedding_once_more_as_the_head(tmp_path: Path) -> None:
    shapes = {name: shape for name, shape in SHAPES.items() if name != "lm_head.weight"}
    adapter = extract(models(tmp_path, shapes, {**LLAMA, "tie_word_embeddings": True}))
    assert adapter.config["ensure_weight_tying"] is True
    assert adapter.tensors[f"{P}lm_head.weight"] is adapter.tensors[f"{P}model.embed_tokens.weight"]
    assert max(differences(tmp_path, adapter).values()) < 2e-6


def test_models_of_other_structures_are_refused(tmp_path: Path) -> None:
    models(tmp_path)
    models(tmp_path / "more", {**SHAPES, "model.layers.0.self_attn.k_proj.weight": (8, 16)})
    os.rename(tmp_path / "tuned", tmp_path / "old")
    os.rename(tmp_path / "more" / "tuned", tmp_path / "tuned")
    with pytest.raises(BadInput, match=r"k_proj.weight' of shape \[6, 16\] and \[8, 16\] cannot become"):
        extract(tmp_path)
    assert (
        f"{P}model.layers.0.self_attn.k_proj.lora_A.weight" not in extract(tmp_path, skip_undecomposable=True).tensors
    )
    models(tmp_path / "less", {name: shape for name, shape in SHAPES.items() if "down_proj" not in name})
    os.rename(tmp_path / "tuned", tmp_path / "other")
    os.rename(tmp_path / "less" / "tuned", tmp_path / "tuned")
    with pytest.raises(BadInput, match=r"has no tensor for 'model.layers.0.mlp.down_proj.weight'"):
        extract(tmp_path)


def test_a_rank_that_needs_more_memory_than_there_is_is_refused(tmp_path: Path) -> None:
    models(tmp_path)
    base, tuned = (sources.open_checkpoint(tmp_path / name) for name in ("base", "tuned"))
    with pytest.raises(UsageError, match="the budget is 1 MiB"):
        open_extraction(base, tuned, Extraction(ModuleChoice(8)), ram_bytes=1 << 20)


def test_the_command_writes_what_peft_reads_and_resumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models(tmp_path)
    command = ["extract-lora", str(tmp_path / "base"), str(tmp_path / "tuned"), str(tmp_path / "out"), "--rank", "4"]
    assert cli.main([*command, "--dry-run"]) == 0
    assert not (tmp_path / "out").exists()
    assert cli.main([*command, "--stop-after", "0s"]) == 75
    assert not (tmp_path / "out").exists()
    assert cli.main([*command, "--threads", "2", "--ram", "300MiB"]) == 0
    assert "LORA" in capsys.readouterr().out
    assert cli.main([*command, "--quiet"]) == 0
    assert sorted(os.listdir(tmp_path / "out")) == ["adapter_config.json", "adapter_model.safetensors"]
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["base_model_name_or_path"]) == ("LORA", 4, str(tmp_path / "base"))
    written = lora.open_adapter(tmp_path / "out")
    for name, rows in extract(tmp_path, 4).tensors.items():
        np.testing.assert_array_equal(values_of(written.tensors[name]), values_of(rows))
    assert cli.main([*command[:3], str(tmp_path / "out.gguf")]) == 64


def test_an_adapter_is_updated_on_demand(tmp_path: Path) -> None:
    models(tmp_path)
    command = ["extract-lora", str(tmp_path / "base"), str(tmp_path / "tuned"), str(tmp_path / "out"), "--quiet"]
    assert cli.main([*command, "--rank", "4"]) == 0
    assert cli.main([*command, "--rank", "2"]) == 73
    assert cli.main([*command, "--rank", "2", "--update"]) == 0
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["r"] == 2


def test_factors_can_be_written_in_half_precision(tmp_path: Path) -> None:
    models(tmp_path)
    command = ["extract-lora", str(tmp_path / "base"), str(tmp_path / "tuned"), str(tmp_path / "out"), "--type", "BF16"]
    assert cli.main([*command, "--quiet"]) == 0
    written = read_safetensors(tmp_path / "out" / "adapter_model.safetensors")
    assert {dtype for dtype, _ in written.values()} == {"BF16"}


def test_products_are_those_of_mergekit(reference: Path) -> None:
    root = reference / "golden" / "merge"
    base, tuned = (sources.open_checkpoint(root / "inputs" / "llama" / name) for name in ("base", "ft1"))
    found = open_extraction(base, tuned, Extraction(ModuleChoice(4, exclude="norm|embed_tokens|lm_head")))
    want = read_safetensors(root / "extract_lora_r4" / "expected" / "adapter_model.safetensors")
    assert set(found.tensors) == set(want)
    for name in want:
        if "lora_A" in name:
            other = name.replace("lora_A", "lora_B")
            ours = values_of(found.tensors[other]) @ values_of(found.tensors[name])
            theirs = floats(want[other][1]) @ floats(want[name][1])
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * np.sqrt(np.mean(theirs**2)))


def test_a_trained_model_comes_back_from_its_adapter(reference: Path) -> None:
    folder = reference / "models" / "tiny-gemma3"
    base, tuned = (sources.open_checkpoint(folder / name) for name in ("base", "code"))
    kept = r"layers\.[05]\.|norm|embed"
    whole = open_extraction(base, tuned, Extraction(ModuleChoice(1024, include=kept)))
    again = lora.with_adapter(base, whole)
    for name, rows in tuned.tensors.items():
        if "layers." not in name or ".0." in name or ".5." in name:
            ours, theirs = values_of(again.tensors[name]), values_of(rows)
            assert (ours != theirs).mean() < 1e-3, name  # a rounding of bfloat16 here and there
            assert np.abs(ours - theirs).max() <= 2**-7 * np.abs(theirs).max()
    for name in ("mlp.down_proj", "self_attn.q_proj", "self_attn.k_proj"):
        path = f"model.layers.0.{name}"
        limited = open_extraction(base, tuned, Extraction(ModuleChoice(16, include=f"^{path}$")))
        a, b = (values_of(limited.tensors[f"{P}{path}.lora_{x}.weight"]).astype(np.float64) for x in "AB")
        difference = values_of(tuned.tensors[f"{path}.weight"]) - values_of(base.tensors[f"{path}.weight"])
        least = np.sqrt((np.linalg.svd(difference.astype(np.float64), compute_uv=False)[16:] ** 2).sum())
        assert np.linalg.norm(difference - b @ a) == pytest.approx(least, rel=1e-5)
