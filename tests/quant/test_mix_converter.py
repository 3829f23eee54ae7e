"""Types as the converter chooses them for a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streamconv.quant.converter_types import CONVERTER_TYPES, auto_file_type, converter_types
from streamconv.quant.filetypes import AUTO, parse_file_type
from streamconv.quant.mix_facts import TensorFacts


def types(filetype: str, *tensors: tuple[str, tuple[int, ...]], stored: str = "BF16") -> list[str]:
    facts = [TensorFacts(name, shape, stored) for name, shape in tensors]
    return [c.type.name for c in converter_types(facts, parse_file_type(filetype))]


@pytest.mark.parametrize("outtype", [*CONVERTER_TYPES, "auto"])
def test_every_reference_conversion_gets_the_same_types(reference: Path, outtype: str) -> None:
    cases = sorted((reference / "golden" / "gguf").glob(f"*/{outtype.lower()}.dump.json"))
    assert cases
    for path in cases:
        tensors = json.loads(path.read_text())["tensors"]
        facts = [TensorFacts(t["name"], tuple(reversed(t["ne"])), "F32") for t in tensors]
        filetype = parse_file_type(outtype)
        if filetype is AUTO:
            filetype = auto_file_type(_checkpoint_tensors(path.parent))
        got = converter_types(facts, filetype)
        assert [(c.name, c.type.name) for c in got] == [(t["name"], t["type"]) for t in tensors], path


def _checkpoint_tensors(case: Path) -> list[TensorFacts]:
    """Names, shapes and stored types from the headers of the case's safetensors files, in reading order."""
    found = []
    folder = case / "hf" if (case / "hf").is_dir() else case / "adapter"
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        found += [
            TensorFacts(n, tuple(t["shape"]), t["dtype"]) for n, t in sorted(header.items()) if n != "__metadata__"
        ]
    return found


def test_vectors_norms_and_what_is_no_weight_stay_f32() -> None:
    assert types(
        "Q8_0",
        ("blk.0.attn_norm.weight", (64,)),
        ("blk.0.attn_q_norm.weight", (4, 64)),
        ("blk.0.ffn_down_exps.bias", (8, 64)),
        ("blk.0.layer_output_scale", (2, 64)),
        ("rope_freqs.weight", (32,)),
        ("blk.0.attn_q.weight.lora_a", (8, 64)),
    ) == ["F32"] * 5 + ["Q8_0"]


def test_small_matrices_of_delicate_layers_stay_f32() -> None:
    names = ["blk.3.ffn_gate_inp", "blk.3.ffn_gate_inp_shexp", "position_embd", "token_types", "v.position_embd",
             "blk.0.ssm_conv1d", "blk.0.ssm_conv1d_q", "blk.0.shortconv.conv", "blk.0.time_mix_w1",
             "blk.0.time_mix_decay_w2", "blk.0.time_mix_lerp_fused", "posnet.1.norm2", "blk.0.altup_correct_coef",
             "blk.0.indexer.proj"]  # fmt: skip
    assert types("F16", *((f"{n}.weight", (4, 64)) for n in names)) == ["F32"] * len(names)
    near = ["blk.3.ffn_gate", "blk.0.indexer.attn_k", "blk.0.time_mix_key", "xposition_embd"]
    assert types("F16", *((f"{n}.weight", (4, 64)) for n in near)) == ["F16"] * len(near)


def test_rows_that_are_not_whole_blocks_become_f16() -> None:
    assert types("Q8_0", ("a.weight", (4, 80)), ("a.weight", (4, 96))) == ["F16", "Q8_0"]
    assert types("TQ1_0", ("a.weight", (4, 96)), ("a.weight", (4, 512))) == ["F16", "TQ1_0"]


def test_ternary_files_keep_embeddings_in_f16() -> None:
    names = ["token_embd", "per_layer_token_embd", "output", "blk.0.altup_router", "blk.1.laurel_l", "blk.1.laurel_r"]
    assert types("TQ2_0", *((f"{n}.weight", (4, 256)) for n in names)) == ["F16"] * 6
    assert types("Q8_0", *((f"{n}.weight", (4, 256)) for n in names)) == ["Q8_0"] * 6


def test_auto_follows_the_first_half_precision_matrix() -> None:
    f32, norm = TensorFacts("a", (4, 4), "F32"), TensorFacts("n", (4,), "F16")
    half, brain = TensorFacts("b", (4, 4), "F16"), TensorFacts("c.weight", (4, 4), "BF16")
    assert auto_file_type([f32, norm, brain, half]).name == "BF16"
    assert auto_file_type([half, brain]).name == "F16"
    assert auto_file_type([f32, norm]).name == "F16"
    assert converter_types([brain], AUTO)[0].type.name == "BF16"


def test_a_family_may_force_a_type_but_not_on_vectors() -> None:
    tensors = [TensorFacts("v.patch_embd.weight", (4, 3, 2, 2), "F32"), TensorFacts("v.class_embd", (4,), "F32")]
    forced = {"v.patch_embd.weight": "F16", "v.class_embd": "F16"}
    choices = converter_types(tensors, parse_file_type("F32"), forced)
    assert [(c.type.name, c.reason) for c in choices] == [
        ("F16", "fixed by the model family"),
        ("F32", "a vector, always F32"),
    ]


def test_stored_blocks_are_repacked_whatever_was_asked_for() -> None:
    assert types("F32", ("blk.0.ffn_up_exps.weight", (8, 4, 64)), stored="MXFP4") == ["MXFP4"]


def test_mixes_are_not_the_converters_business() -> None:
    with pytest.raises(ValueError, match="Q4_K_M"):
        types("Q4_K_M", ("a.weight", (4, 256)))
