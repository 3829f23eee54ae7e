"""What training leaves in names and shapes: taken off, left out, or refused as what it is."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from container_files import f32, write_safetensors

from streamconv import conversion
from streamconv.conversion import Options
from streamconv.errors import BadInput
from streamconv.sources import open_checkpoint
from streamconv.sources.mapped import MappedFile
from streamconv.sources.safetensors import read_safetensors
from streamconv.sources.state_dicts import is_buffer, is_of_adapter, unwrapped

Tensors = dict[str, tuple[str, np.ndarray]]


@pytest.fixture
def changed(tmp_path: Path, data: Path) -> Callable[[Callable[[Tensors], Tensors]], Path]:
    """Function that makes a Qwen3 checkpoint whose tensors are changed."""

    def make(change: Callable[[Tensors], Tensors]) -> Path:
        model = Path(shutil.copytree(data / "checkpoints" / "qwen3-tied" / "hf", tmp_path / "m"))
        path = model / "model.safetensors"
        found = read_safetensors(MappedFile(path)).tensors
        words = {"BF16": "<u2", "F16": "<u2", "F32": "<u4"}
        tensors = {
            n: (r.dtype, np.array(r.stored(0, r.n_rows)).view(words[r.dtype]).reshape(r.shape))
            for n, r in found.items()
        }
        path.unlink()
        write_safetensors(path, change(tensors))
        return model

    return make


def planned(model: Path, tmp_path: Path, output: str = "x.gguf") -> tuple[set[str], list[str], dict[str, str]]:
    prepared = conversion.prepare(model, tmp_path / output, Options(pre="qwen2" if output.endswith("f") else None))
    return {t.name for t in prepared.outputs[0].tensors}, prepared.warnings, dict(prepared.left_out)


Change = Callable[[Callable[[Tensors], Tensors]], Path]


@pytest.mark.parametrize(
    "prefix", ["_orig_mod.", "module.", "module._orig_mod.", "_fsdp_wrapped_module.", "base_model.model.",
        "_forward_module.module."]
)  # fmt: skip
@pytest.mark.parametrize("output", ["x.gguf", "x"])
def test_a_prefix_that_all_names_have_is_taken_off_with_a_note(
    changed: Change, data: Path, tmp_path: Path, prefix: str, output: str
) -> None:
    want, plain, _ = planned(data / "checkpoints" / "qwen3-tied" / "hf", tmp_path, output)
    found, notes, _ = planned(changed(lambda t: {prefix + n: v for n, v in t.items()}), tmp_path, output)
    assert found == want
    assert [note for note in notes if note not in plain and "of a wrapper is removed from" in note]


def test_parts_of_wrappers_within_names_are_taken_off(changed: Change, data: Path, tmp_path: Path) -> None:
    want, _, _ = planned(data / "checkpoints" / "qwen3-tied" / "hf", tmp_path)
    model = changed(
        lambda t: {n.replace(".mlp.", "._checkpoint_wrapped_module.mlp._orig_mod."): v for n, v in t.items()}
    )
    assert planned(model, tmp_path)[0] == want


def test_names_are_left_alone_where_two_would_be_one_or_a_module_is_called_so() -> None:
    both = {"_orig_mod.a": 1, "a": 2}
    assert unwrapped(both, Path("m"), []) == both
    some = {"module.a": 1, "b": 2, "x.module.c": 3}
    assert unwrapped(some, Path("m"), []) == some


def test_a_prefix_that_only_some_names_have_is_named(changed: Change, tmp_path: Path) -> None:
    model = changed(lambda t: {n if "layers" in n else f"module.{n}": v for n, v in t.items()})
    with pytest.raises(BadInput, match=r"'module\.lm_head\.weight' has no place") as refused:
        planned(model, tmp_path)
    assert "prefix of a wrapper" in refused.value.hint


@pytest.mark.parametrize(
    "name",
    [
        "model.rotary_emb.inv_freq", "model.rotary_emb.original_inv_freq", "model.layers.0.self_attn.rotary_emb.sin_cached",
        "rotary_emb.cos_sin_cache", "freqs_cis", "rope.freqs", "model.layers.1.mlp._extra_state",
        "model.layers.1.mlp.up_proj._extra_state", "transformer.h.0.attention.masked_bias",
    ],
)  # fmt: skip
def test_buffers_and_states_are_left_out(changed: Change, data: Path, tmp_path: Path, name: str) -> None:
    assert is_buffer(name)
    want, _, _ = planned(data / "checkpoints" / "qwen3-tied" / "hf", tmp_path)
    for value in (f32(8), f32(0)):
        shutil.rmtree(tmp_path / "m", ignore_errors=True)
        found, _, left_out = planned(changed(lambda t, v=value: {**t, name: v}), tmp_path)  # type: ignore[misc]
        assert found == want
        assert name in left_out


@pytest.mark.parametrize(
    "name", ["model.layers.0.self_attn.q_proj.bias", "cos.weight", "rope.proj.weight", "sin_cached.weight"]
)
def test_weights_are_no_buffers(name: str) -> None:
    assert not is_buffer(name)
    assert not is_of_adapter(name)


@pytest.mark.parametrize(
    "part", ["base_layer.weight", "lora_A.default.weight", "lora_embedding_B.default",
        "lora_magnitude_vector.default.weight", "ia3_l.x"]
)  # fmt: skip
@pytest.mark.parametrize("prefix", ["", "base_model.model."])
def test_an_adapter_that_was_not_merged_is_never_left_out(
    changed: Change, tmp_path: Path, part: str, prefix: str
) -> None:
    def wrap(tensors: Tensors) -> Tensors:
        return {prefix + n: v for n, v in tensors.items()} | {
            f"{prefix}model.layers.0.self_attn.q_proj.{part}": f32(2, 2)
        }

    with pytest.raises(BadInput, match="of a PEFT adapter that was not merged") as refused:
        planned(changed(wrap), tmp_path)
    assert "merge_and_unload" in refused.value.hint


@pytest.mark.parametrize("output", ["x.gguf", "x"])
def test_empty_weights_are_told_as_what_one_rank_of_many_saves(changed: Change, tmp_path: Path, output: str) -> None:
    model = changed(lambda t: {n: f32(0) if v[1].ndim > 1 and ".0." in n else v for n, v in t.items()})
    with pytest.raises(BadInput, match=r"\d+ of \d+ tensors are empty \(shape \[0\]\): 'model.layers.0") as refused:
        planned(model, tmp_path, output)
    assert "ZeRO-3" in refused.value.hint


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("model.layers.0.mlp.up_proj.weight_packed", "quantized weight"),
        ("model.layers.0.mlp.up_proj.input_scale", "quantized weight"),
        ("optimizer.exp_avg.0", "state of a training"), ("score.weight", "head of a classifier"),
        ("model.layers.0.mlp.extra.weight", "another module"),
    ],
)  # fmt: skip
def test_a_tensor_without_a_place_gets_the_hint_of_its_cause(
    changed: Change, tmp_path: Path, name: str, words: str
) -> None:
    with pytest.raises(BadInput, match="has no place") as refused:
        planned(changed(lambda t: {**t, name: f32(2, 2)}), tmp_path)
    assert words in refused.value.hint


def test_a_single_file_keeps_its_names_unless_it_is_a_models(tmp_path: Path) -> None:
    path = write_safetensors(tmp_path / "x.safetensors", {"module.a": f32(1)})
    assert list(open_checkpoint(path).tensors) == ["module.a"]
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert list(open_checkpoint(path).tensors) == ["a"]
