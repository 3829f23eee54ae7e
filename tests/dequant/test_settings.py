"""What config.json says of the encoding, and what follows: it is understood, or nothing is converted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from quantized_files import Tensors, bf16, write_safetensors

import streamconv
from streamconv import dequant
from streamconv.errors import BadInput
from streamconv.sources import open_checkpoint

PLAIN: Tensors = {"w.weight": ("BF16", bf16(np.arange(8, dtype=np.float32).reshape(2, 4)))}
CODES: Tensors = {"w.weight": ("I8", np.ones((2, 4), np.int8)), "w.weight_scale": ("F32", np.ones((2, 1), np.float32))}


def folder(at: Path, tensors: Tensors, section: Any, key: str = "quantization_config") -> Path:
    at.mkdir()
    write_safetensors(at / "model.safetensors", tensors)
    (at / "config.json").write_text(json.dumps({"architectures": ["X"], key: section}))
    return at


def decoded(at: Path, tensors: Tensors, section: Any) -> Any:
    return dequant.decoded(open_checkpoint(folder(at / "hf", tensors, section)))


@pytest.mark.parametrize("section", [
    {"checkpoint_format": "marlin"}, {"is_marlin_format": True}, {"format": "marlin"}, {"checkpoint_format": "bitblas"}, {},
])  # fmt: skip
def test_weights_in_the_layout_of_marlin_are_refused_for_every_target(tmp_path: Path, section: dict[str, Any]) -> None:
    tensors: Tensors = {
        **PLAIN, "u.B": ("I32", np.ones((4, 128), np.int32)), "u.s": ("F16", np.ones((2, 64), np.float16)),
    }  # fmt: skip
    source = folder(tmp_path / "hf", tensors, {"quant_method": "gptq", "bits": 4, **section})
    for out in ("out", "out.gguf"):
        with pytest.raises(BadInput, match=r"marlin|bitblas"):
            streamconv.convert(source, tmp_path / out, type="F16")
        assert not (tmp_path / out).exists()


@pytest.mark.parametrize("section", [
    {}, None, {"quant_method": "torchao"}, {"quant_method": "bitsandbytes", "load_in_4bit": True}, {"quant_method": "gptq"},
    {"quant_method": "compressed-tensors", "format": "fakequant", "quantization_status": "frozen"}, {"anything": 1},
    {"quant_method": "auto-round", "packing_format": "auto_round:fake"},
])  # fmt: skip
def test_plain_weights_with_a_section_that_was_left_over_stay_as_they_are(tmp_path: Path, section: Any) -> None:
    found = decoded(tmp_path, PLAIN, section)
    assert np.array_equal(found.tensors["w.weight"].read(0, 2), np.arange(8).reshape(2, 4))
    assert "quantization_config" not in found.config
    assert any("not quantized" in text for text in found.warnings) == bool(section)


@pytest.mark.parametrize("section", [{"quant_method": "torchao"}, {"anything": 1}, {"quant_method": "auto-round"}])
@pytest.mark.parametrize("dtype", ["I8", "U8", "I16", "I32", "I64"])
def test_codes_of_a_method_that_is_not_known_are_refused(tmp_path: Path, section: Any, dtype: str) -> None:
    word = f"<{dtype[0].lower()}{int(dtype[1:]) // 8}"
    tensors: Tensors = {**PLAIN, "u.codes": (dtype, np.ones((2, 4), word))}
    if section == {"quant_method": "auto-round"}:
        section = {**section, "packing_format": "auto_round:another"}
    with pytest.raises(BadInput, match=r"quantization_config.*cannot be decoded"):
        decoded(tmp_path, tensors, section)


@pytest.mark.parametrize("method", ["fp8", "compressed-tensors", "gptq", "bitsandbytes", "hqq", "mxfp4"])
def test_codes_that_nothing_was_made_of_are_refused_whatever_they_are_called(tmp_path: Path, method: str) -> None:
    tensors: Tensors = {**PLAIN, "u.indices": ("I16", np.ones((2, 4), np.int16))}
    with pytest.raises(BadInput, match=r"u.indices"):
        decoded(tmp_path, tensors, {"quant_method": method})


def test_tables_of_whole_numbers_are_no_codes(tmp_path: Path) -> None:
    tables: Tensors = {
        "e.position_ids": ("I64", np.arange(4, dtype="<i8").reshape(1, 4)), "n.num_batches_tracked": ("I64", np.array(3, "<i8")),
        "h.attn.bias": ("U8", np.ones((1, 1, 4, 4), np.uint8)),
    }  # fmt: skip
    found = decoded(tmp_path, {**CODES, **tables}, {"quant_method": "compressed-tensors"})
    assert set(tables) < set(found.tensors)


@pytest.mark.parametrize(("key", "value"), [
    ("rotation", "hadamard"), ("rotation_config", {"block_size": 32, "hadamard_type": "quarot_hadamard"}), ("permutation", [1, 0]),
    ("codebook", "e8"), ("spinquant_config", {"r1": True}),
])  # fmt: skip
@pytest.mark.parametrize("method", ["compressed-tensors", "gptq", "fp8", "auto-round"])
def test_a_key_that_is_not_understood_is_refused_by_its_name(tmp_path: Path, key: str, value: Any, method: str) -> None:
    section = {"quant_method": method, "packing_format": "auto_round:auto_gptq", key: value}
    if method != "auto-round":
        del section["packing_format"]
    with pytest.raises(BadInput, match=f"quantization_config: {key} is"):
        decoded(tmp_path, CODES, section)


@pytest.mark.parametrize("value", [None, False, {}, [], "", {"a": None, "b": []}])
def test_a_key_that_says_nothing_needs_no_understanding(tmp_path: Path, value: Any) -> None:
    section = {"quant_method": "compressed-tensors", "rotation_config": value, "acme_version": "1.2"}
    assert decoded(tmp_path, CODES, section).tensors["w.weight"].encoding.startswith("int8")


def test_keys_of_groups_of_modules_are_looked_at_too(tmp_path: Path) -> None:
    group = {"targets": ["Linear"], "weights": {"num_bits": 8, "codebook": "e8"}}
    with pytest.raises(BadInput, match="config_groups: weights: codebook"):
        decoded(tmp_path, CODES, {"quant_method": "compressed-tensors", "config_groups": {"g": group}})


def transforms(*places: str) -> dict[str, Any]:
    apply = [{"targets": ["Linear"], "location": place, "inverse": False} for place in places]
    return {"config_groups": {"R9": {"type": "hadamard", "head_dim": 16, "apply": apply}}}


@pytest.mark.parametrize("place", ["input", "output", "k_cache", "q_attn", "elsewhere"])
@pytest.mark.parametrize("tensors", [CODES, PLAIN])
def test_a_rotation_that_the_model_applies_is_refused_by_its_name(tmp_path: Path, place: str, tensors: Tensors) -> None:
    section = {"quant_method": "compressed-tensors", "transform_config": transforms("weight_input", place)}
    with pytest.raises(BadInput, match=rf"transform_config: 'R9' .'hadamard'. is a rotation.*'{place}'"):
        decoded(tmp_path, tensors, section)


@pytest.mark.parametrize("config", [{}, None, {"config_groups": {}}, transforms("weight_input", "weight_output")])
def test_a_rotation_that_is_part_of_the_weights_changes_nothing(tmp_path: Path, config: Any) -> None:
    found = decoded(tmp_path, CODES, {"quant_method": "compressed-tensors", "transform_config": config})
    assert np.array_equal(found.tensors["w.weight"].read(0, 2), np.ones((2, 4)))


@pytest.mark.parametrize("config", ["text", {"config_groups": ["R1"]}, {"config_groups": {"R1": "x"}}, {"other": 1}])
def test_a_description_of_rotations_that_is_none_is_refused(tmp_path: Path, config: Any) -> None:
    with pytest.raises(BadInput, match="transform_config"):
        decoded(tmp_path, CODES, {"quant_method": "compressed-tensors", "transform_config": config})


NVFP4: Tensors = {
    "w.weight": ("U8", np.full((2, 8), 0x21, np.uint8)), "w.weight_scale": ("F8_E4M3", np.full((2, 1), 0x38, np.uint8)),
    "w.weight_scale_2": ("F32", np.array(0.5, np.float32)),
}  # fmt: skip


def test_the_file_that_modelopt_writes_beside_config_json_is_read(tmp_path: Path) -> None:
    at = folder(tmp_path / "hf", NVFP4, None)
    (at / "hf_quant_config.json").write_text(json.dumps(
        {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4", "group_size": 16, "kv_cache_quant_algo": "FP8"}}
    ))  # fmt: skip
    streamconv.convert(at, tmp_path / "out", type="F32")
    assert open_checkpoint(tmp_path / "out").tensors["w.weight"].read(0, 2).tolist() == [[0.25, 0.5] * 8] * 2
    assert not (tmp_path / "out" / "hf_quant_config.json").exists()


@pytest.mark.parametrize("section", [
    {"quant_algo": "W4A8_AWQ"}, {"quant_algo": "NVFP4_SVD"}, {"quantization": {"quant_algo": "ACME9"}},
    {"quant_algo": "MIXED_PRECISION", "quantized_layers": {"a": {"quant_algo": "FP8"}, "b": {"quant_algo": "W4A8_AWQ"}}},
    {"quant_algo": "NVFP4", "has_zero_point": True}, {"config_groups": {"g": {"quant_algo": "ACME9"}}},
])  # fmt: skip
def test_an_algorithm_of_modelopt_that_cannot_be_decoded_is_refused(tmp_path: Path, section: Any) -> None:
    with pytest.raises(BadInput, match=r"W4A8_AWQ|NVFP4_SVD|ACME9|has_zero_point"):
        decoded(tmp_path, NVFP4, {"quant_method": "modelopt", **section})


@pytest.mark.parametrize(("change", "named"), [
    ({"w.weight_scale_2": None}, "weight_scale_2"), ({"w.pre_quant_scale": ("F32", np.ones(3, np.float32))}, "pre_quant_scale"),
    ({"w.weight_scale_2": ("F32", np.ones(2, np.float32))}, "weight_scale_2"), ({"w.weight_scale": None}, "w.weight"),
    ({"w.svdquant_lora_a": ("F32", np.ones((2, 2), np.float32))}, "svdquant_lora_a"),
    ({"u.pre_quant_scale": ("F32", np.ones(2, np.float32))}, "u.pre_quant_scale"),
])  # fmt: skip
def test_parts_of_modelopt_that_do_not_fit_are_named(tmp_path: Path, change: Any, named: str) -> None:
    tensors = {name: part for name, part in {**NVFP4, **change}.items() if part is not None}
    with pytest.raises(BadInput, match=named):
        decoded(tmp_path, tensors, {"quant_method": "modelopt"})


@pytest.mark.parametrize("section", [{"linear_class": "acme"}, {"use_rms_norm": True}, {"linear_class": ["bitlinear"]}])
def test_layers_of_bitnet_that_compute_something_else_are_refused(tmp_path: Path, section: Any) -> None:
    codes: Tensors = {"w.weight": ("U8", np.ones((2, 4), np.uint8)), "w.weight_scale": ("F32", np.ones(1, np.float32))}
    with pytest.raises(BadInput, match=next(iter(section))):
        decoded(tmp_path, codes, {"quant_method": "bitnet", **section})


def test_weights_that_bitnet_rounds_while_it_runs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="quantization_mode is 'online'"):
        decoded(
            tmp_path, PLAIN, {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online"}
        )
