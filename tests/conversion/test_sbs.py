"""Weight files of gemma.cpp: what its own writer gives for the same checkpoints, whatever the source and however interrupted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gemma_toys as toys
import numpy as np
import pytest
from quantized_files import bf16, nf4
from small_models import DATA, Tensors, read_safetensors, write_safetensors

import streamconv
from streamconv import sbs
from streamconv.errors import BadInput, Stopped, StreamconvError, UsageError
from streamconv.models.gemma_cpp.model_config import TYPE_NAMES, parse_config

AS = {"sbs_model": "gemma2-2b-it", "max_seq_len": 64}
AS_PALIGEMMA = {"sbs_model": "paligemma2-3b-224", "max_seq_len": 64}
#: what gemma.cpp writes for the first layers of small models: type, rows, columns, scale, beginning of the digest of each blob
GOLDEN = json.loads((DATA / "sbs" / "models.json").read_text())
_MODELS = np.load(DATA / "sbs" / "models.npz")


def convert(source: Path, out: Path, type: str = "sfp", **options: Any) -> dict[str, bytes]:
    """The blobs of the weight file that ``source`` becomes."""
    (written,) = streamconv.convert(source, out, type=type, **{**AS, **options})
    return toys.blobs(written)


def values(tensors: Tensors, name: str) -> np.ndarray:
    return (tensors[name][1].astype(np.uint32) << 16).view(np.float32)


def recorded(name: str) -> Tensors:
    return {n.partition("/")[2]: ("BF16", _MODELS[n]) for n in _MODELS.files if n.startswith(f"{name}/")}


def golden_folder(folder: Path, name: str) -> tuple[Path, dict[str, Any]]:
    """The checkpoint of which the first layers are recorded; what is not is zeros."""
    known = recorded(name)
    config: dict[str, Any] = {
        **toys.CONFIG, "hidden_size": 64, "intermediate_size": 128, "head_dim": 32, "num_attention_heads": 4,
        "num_key_value_heads": 2, "num_hidden_layers": 1, "vocab_size": 8, "query_pre_attn_scalar": 32,
    }  # fmt: skip
    if name == "gemma2_a":
        return toys.written(
            folder, {"model.embed_tokens.weight": ("BF16", np.zeros((8, 64), np.uint16)), **known}, config
        ), AS
    shapes = {n: s for n, s in toys.text_shapes(config).items()}
    shapes |= {f"layers.0.self_attn.{kind}_norm.weight": (32,) for kind in "qk"}
    tensors: Tensors = {f"language_model.model.{n}": ("BF16", np.zeros(s, np.uint16)) for n, s in shapes.items()}
    text = {**config, "model_type": "gemma3_text", "architectures": None}
    tower = {**toys.TOWER, "hidden_size": 48, "intermediate_size": 80, "num_attention_heads": 3, "image_size": 56}
    said = {
        "architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "text_config": text,
        "vision_config": tower, "mm_tokens_per_image": 1,
    }  # fmt: skip
    return toys.written(folder, {**tensors, **known}, said), {"sbs_model": "gemma3-4b", "max_seq_len": 64}


@pytest.mark.parametrize("case", GOLDEN)
def test_every_blob_is_what_gemma_cpp_writes(tmp_path: Path, case: str) -> None:
    name, policy, layout = case.split(".")
    folder, options = golden_folder(tmp_path / "m", name)
    found = convert(folder, tmp_path / "x.sbs", policy, sbs_layout=layout, **options)
    entries = toys.toc(found["toc"])
    for key, (kind, rows, cols, scale, digest) in GOLDEN[case].items():
        assert hashlib.sha256(found[key]).hexdigest().startswith(digest), key
        number, width, elements, *shape, its_scale, stride = entries[key]
        assert (TYPE_NAMES[number].lower(), tuple(shape), its_scale, stride) == (kind, (rows, cols), scale, cols)
        assert width * elements == len(found[key])
    assert parse_config(found["config"]).weight == {"bf16": 2, "sfp": 3, "nuq": 4, "i8": 8}[policy]
    assert found["tokenizer"] == (folder / "tokenizer.model").read_bytes()
    assert max(map(len, found)) <= 16


@pytest.mark.parametrize("type", ["sfp", "nuq", "i8", "f32"])
def test_rows_that_are_no_whole_groups_are_encoded_as_the_whole_tensor_is(tmp_path: Path, type: str) -> None:
    folder = toys.gemma2(tmp_path / "m", scale=3.0)
    tensors = read_safetensors(folder / "model.safetensors")
    found = convert(folder, tmp_path / "x.sbs", type)
    entries = toys.toc(found["toc"])
    for key, name in {"linear_w_1": "mlp.down", "qkv1_w_1": "self_attn.q", "gating2_w_1": "mlp.up"}.items():
        packed, scale = sbs.encode(values(tensors, f"model.layers.1.{name}_proj.weight"), type)
        assert found[key] == packed.tobytes(), key
        assert entries[key][5] == scale
    assert (entries["linear_w_1"][5] > 1) == (type in ("sfp", "nuq"))


def test_matrices_that_are_fused_have_the_scale_of_the_whole(tmp_path: Path) -> None:
    folder = toys.gemma2(tmp_path / "m", scale=3.0)
    tensors = read_safetensors(folder / "model.safetensors")
    found = convert(folder, tmp_path / "x.sbs", sbs_layout="exporter")
    q, k, v = (values(tensors, f"model.layers.0.self_attn.{name}_proj.weight") for name in "qkv")
    packed, scale = sbs.encode(np.concatenate([q, k, v]), "sfp")
    assert found["qkv_ein_0"] == packed.tobytes()
    assert toys.toc(found["toc"])["qkv_ein_0"][5] == scale > 1
    o = values(tensors, "model.layers.0.self_attn.o_proj.weight").reshape(20, 2, 12).transpose(1, 0, 2)
    assert found["att_ein_0"] == sbs.encode(o, "sfp")[0].tobytes()


def test_a_merge_goes_straight_to_a_weight_file(tmp_path: Path) -> None:
    for n in range(2):
        toys.gemma2(tmp_path / f"m{n}", seed=n, scale=2.0)
    (tmp_path / "r.yml").write_text(
        f"merge_method: slerp\nbase_model: {tmp_path}/m0\nmodels: [{{model: {tmp_path}/m0}}, {{model: {tmp_path}/m1}}]\n"
        "parameters: {t: 0.4}\ndtype: bfloat16\n"
    )
    streamconv.convert(tmp_path / "r.yml", tmp_path / "merged")
    straight, by_folder = (
        convert(tmp_path / "r.yml", tmp_path / "a.sbs"),
        convert(tmp_path / "merged", tmp_path / "b.sbs"),
    )
    assert {**straight, "streamconv": b""} == {**by_folder, "streamconv": b""}


def test_four_bits_of_bitsandbytes_become_what_their_values_become(tmp_path: Path) -> None:
    shapes, config = toys.paligemma()
    plain = toys.random(shapes)
    packed: Tensors = dict(plain)
    rng = np.random.default_rng(1)
    for name, shape in shapes.items():
        if name.startswith("language_model.model.layers.") and len(shape) == 2:
            del packed[name]
            parts, decoded = nf4(name, shape, rng)
            packed |= parts
            plain[name] = "BF16", bf16(decoded)
    section = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    toys.written(tmp_path / "q", packed, {**config, "quantization_config": section})
    toys.written(tmp_path / "p", plain, config)
    found = convert(tmp_path / "q", tmp_path / "q.sbs", **AS_PALIGEMMA)
    assert {**found, "streamconv": b""} == {
        **convert(tmp_path / "p", tmp_path / "p.sbs", **AS_PALIGEMMA),
        "streamconv": b"",
    }
    tower = np.concatenate([
        values(plain, f"vision_tower.vision_model.encoder.layers.0.self_attn.{n}_proj.bias").reshape(2, 1, 12) for n in "qkv"
    ], 1)  # fmt: skip
    assert found["qkv_ein_b_0"] == tower.tobytes()


def test_an_interrupted_job_goes_on_and_gives_the_same_bytes(tmp_path: Path) -> None:
    folder = toys.gemma2(tmp_path / "m", scale=3.0)
    whole, out = convert(folder, tmp_path / "a.sbs"), tmp_path / "b.sbs"
    for _ in range(4):
        with pytest.raises(Stopped):
            streamconv.convert(folder, out, type="sfp", **AS, stop_after_s=0.0, threads=1)
    streamconv.convert(folder, out, type="sfp", **AS)
    assert {**toys.blobs(out), "streamconv": b""} == {**whole, "streamconv": b""}
    assert not list(tmp_path.glob("[!.]*.streamconv"))


def test_what_was_made_of_other_inputs_is_replaced_with_update_only(tmp_path: Path) -> None:
    folder, out = toys.gemma2(tmp_path / "m"), tmp_path / "x.sbs"
    before = convert(folder, out)
    assert convert(folder, out) == before
    tensors = read_safetensors(folder / "model.safetensors")
    name = "model.layers.0.mlp.down_proj.weight"
    tensors[name] = "BF16", bf16(4 * values(tensors, name))
    write_safetensors(folder / "model.safetensors", tensors)
    with pytest.raises(StreamconvError):
        convert(folder, out)
    after = convert(folder, out, update=True)
    assert [key for key in after if after[key] != before[key]] == ["streamconv", "toc", "linear_w_0"]


def test_rules_decide_types_and_the_type_of_the_file_follows(tmp_path: Path) -> None:
    folder = toys.gemma2(tmp_path / "m")
    found = convert(folder, tmp_path / "x.sbs", "bf16", tensor_types=("linear_w_1=sfp", "c_emb=f32", "linear=i8"))
    kinds = {key: TYPE_NAMES[entry[0]] for key, entry in toys.toc(found["toc"]).items()}
    asked = {"linear_w_1": "SFP", "linear_w_0": "I8", "c_embedding": "F32", "qkv1_w_0": "BF16", "pre_att_ns_0": "BF16"}
    assert {key: kinds[key] for key in asked} == asked
    first = next(kind for kind in kinds.values() if kind in ("SFP", "I8"))
    assert TYPE_NAMES[parse_config(found["config"]).weight] == first


def test_several_types_are_made_from_one_plan(tmp_path: Path) -> None:
    folder = toys.gemma2(tmp_path / "m")
    written = streamconv.convert(folder, tmp_path / "x-{type}.sbs", type="sfp,bf16", **AS)
    assert [path.name for path in written] == ["x-SFP.sbs", "x-BF16.sbs"]
    for path, kind in zip(written, ("sfp", "bf16"), strict=True):
        assert {**toys.blobs(path), "streamconv": b""} == {
            **convert(folder, tmp_path / f"{kind}.sbs", kind),
            "streamconv": b"",
        }


def test_a_report_tells_the_error_of_the_scaled_values(tmp_path: Path) -> None:
    folder = toys.gemma2(tmp_path / "m", scale=3.0)
    convert(folder, tmp_path / "x.sbs", report=tmp_path / "r.jsonl")
    lines = {line["name"]: line for line in map(json.loads, (tmp_path / "r.jsonl").read_text().splitlines())}
    tensors = read_safetensors(folder / "model.safetensors")
    x = values(tensors, "model.layers.0.mlp.down_proj.weight").reshape(-1)
    packed, scale = sbs.encode(x, "sfp")
    error = sbs.decode(packed, "sfp", x.size, float(scale)) - x
    assert lines["linear_w_0"]["rmse"] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-4)
    assert lines["linear_w_0"]["shape"] == [20, 36]
    assert len(lines) == 22


def test_a_report_of_several_types_tells_the_error_of_each(tmp_path: Path) -> None:
    folder = toys.gemma2(tmp_path / "m", scale=3.0)

    def errors(type: str, out: str) -> dict[str, float]:
        streamconv.convert(folder, tmp_path / out, type=type, report=tmp_path / f"{type}.jsonl", **AS)
        lines = map(json.loads, (tmp_path / f"{type}.jsonl").read_text().splitlines())
        return {line["type"]: line["rmse"] for line in lines if line["name"] == "linear_w_0"}

    assert errors("sfp,bf16", "x-{type}.sbs") == {**errors("sfp", "a.sbs"), **errors("bf16", "b.sbs")}


def test_without_a_sentencepiece_model_there_is_no_tokenizer_and_a_note_says_so(tmp_path: Path) -> None:
    folder = toys.gemma2(tmp_path / "m")
    (folder / "tokenizer.model").unlink()
    notes = streamconv.plan(folder, tmp_path / "x.sbs", **AS)["warnings"]
    assert any("the output has no tokenizer" in note for note in notes)
    assert convert(folder, tmp_path / "x.sbs")["tokenizer"] == b"unavailable"


def test_nan_is_refused_where_a_scale_is_looked_for(tmp_path: Path) -> None:
    tensors = toys.random({f"model.{n}": s for n, s in toys.text_shapes().items()})
    tensors["model.layers.1.mlp.up_proj.weight"][1][3, 4] = 0x7FC0
    folder = toys.gemma2(tmp_path / "m", tensors)
    with pytest.raises(BadInput, match="'gating2_w_1' holds nan at row 3, column 4"):
        convert(folder, tmp_path / "x.sbs")


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "another architecture": ({"architectures": ["LlamaForCausalLM"]}, "does not run 'LlamaForCausalLM'"),
    "Gemma 3n": ({"architectures": ["Gemma3nForConditionalGeneration"]}, "does not run 'Gemma3nForConditionalGeneration'"),
    "RecurrentGemma": ({"architectures": ["RecurrentGemmaForCausalLM"]}, "does not run 'RecurrentGemmaForCausalLM'"),
    "Gemma 4": ({"architectures": ["Gemma4ForConditionalGeneration"]}, "does not run 'Gemma4ForConditionalGeneration'"),
    "Gemma 1 7B": (
        {"architectures": ["GemmaForCausalLM"], "model_type": "gemma", "num_key_value_heads": 2}, "2 key/value heads"
    ),
    "an activation": ({"hidden_activation": "silu"}, "'hidden_activation' is 'silu'"),
    "biases": ({"attention_bias": True}, "'attention_bias' is True"),
    "a scale of queries": ({"query_pre_attn_scalar": 99}, "'query_pre_attn_scalar' is 99"),
    "a base of RoPE": ({"rope_theta": 5e5}, "the base of RoPE of full attention is 500000"),
    "scaled positions": ({"rope_scaling": {"rope_type": "yarn", "factor": 2}}, "is scaled ('yarn')"),
    "attention in both directions": ({"use_bidirectional_attention": True}, "'use_bidirectional_attention' is True"),
    "a wide head": ({"head_dim": 2048}, "'head_dim' is 2048"),
    "chunks": ({"layer_types": ["full_attention", "chunked_attention"]}, "'layer_types' has 'chunked_attention'"),
    "too few layers": ({"num_hidden_layers": 1}, "'model.layers.1."),
    "too many layers": ({"num_hidden_layers": 3}, "'model.layers.2.self_attn.o_proj.weight' is missing"),
    "another width": ({"intermediate_size": 40}, "'model.layers.0.mlp.gate_proj.weight' has shape [36, 20]"),
    "heads that do not divide": ({"num_key_value_heads": 3, "num_attention_heads": 4}, "4 heads do not share 3"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_gemma_cpp_does_not_compute_is_refused_by_name(tmp_path: Path, what: str) -> None:
    change, said = REFUSED[what]
    folder = toys.gemma2(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(StreamconvError) as e:
        streamconv.plan(folder, tmp_path / "x.sbs", **AS)
    assert said in e.value.message


OPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "NUQ in fused matrices": ({"type": "nuq", "sbs_layout": "exporter"}, "cannot load att_ein_0 as NUQ"),
    "the same by a rule": ({"sbs_layout": "exporter", "tensor_types": ("att=nuq",)}, "cannot load att_ein_0 as NUQ"),
    "a norm in eight bits": ({"tensor_types": ("pre_att=sfp",)}, "does not take pre_att_ns_0 as SFP"),
    "a rule without a type": ({"tensor_types": ("linear",)}, "not a tensor type rule"),
    "a type of others": ({"tensor_types": ("linear=q4_k",)}, "'q4_k' is no type of gemma.cpp"),
    "a model that there is not": ({"sbs_model": "gemma2-3b"}, "has no model 'gemma2-3b'"),
    "a model of another kind": ({"sbs_model": "gemma3-1b"}, "--sbs-model gemma3-1b"),
    "no model of these sizes": ({"sbs_model": None}, "2 layers of width 20"),
    "a type of GGUF": ({"type": "q4_k_m"}, "cannot hold Q4_K_M"),
}  # fmt: skip


@pytest.mark.parametrize("what", OPTIONS)
def test_options_that_do_not_fit_are_refused_before_anything_is_written(tmp_path: Path, what: str) -> None:
    change, said = OPTIONS[what]
    with pytest.raises(UsageError) as e:
        streamconv.plan(toys.gemma2(tmp_path / "m"), tmp_path / "x.sbs", **{**AS, **change})
    assert said in e.value.message


def test_bias_and_scale_of_a_norm_are_of_one_type(tmp_path: Path) -> None:
    shapes, config = toys.paligemma()
    folder = toys.written(tmp_path / "m", toys.random(shapes), config)
    with pytest.raises(UsageError, match="ln_0_bias_0 as F32 and ln_0_scale_0 as BF16"):
        streamconv.plan(folder, tmp_path / "x.sbs", tensor_types=("ln_0_bias=f32",), **AS_PALIGEMMA)


def test_other_outputs_refuse_the_options_of_this_one(tmp_path: Path) -> None:
    for option in ({"sbs_layout": "exporter"}, {"sbs_model": "gemma2-2b"}, {"max_seq_len": 64}):
        with pytest.raises(UsageError, match=r"only on a weight file of gemma\.cpp"):
            streamconv.plan(toys.gemma2(tmp_path / next(iter(option))), tmp_path / "x.gguf", **option)  # type: ignore[arg-type]


CHANGED: dict[str, Callable[[Tensors], Any]] = {
    "'model.extra.weight' is not part of the model": lambda t: t.update(
        {"model.extra.weight": ("BF16", np.zeros(4, np.uint16))}
    ),
    "'model.layers.1.mlp.down_proj.weight' is missing": lambda t: t.pop("model.layers.1.mlp.down_proj.weight"),
}


@pytest.mark.parametrize("said", CHANGED)
def test_tensors_that_are_missing_or_too_many_are_named(tmp_path: Path, said: str) -> None:
    tensors = toys.random({f"model.{n}": s for n, s in toys.text_shapes().items()})
    CHANGED[said](tensors)
    with pytest.raises(BadInput) as e:
        streamconv.plan(toys.gemma2(tmp_path / "m", tensors), tmp_path / "x.sbs", **AS)
    assert said in e.value.message


@pytest.mark.parametrize("arch", ["gemma2", "gemma3"])
def test_a_gguf_file_becomes_what_its_checkpoint_becomes(tmp_path: Path, arch: str) -> None:
    folder = toys.gemma2(tmp_path / "m") if arch == "gemma2" else DATA / "checkpoints" / "gemma3-text" / "hf"
    options = {**AS, "sbs_model": {"gemma2": "gemma2-2b-pt", "gemma3": "gemma3-1b"}[arch]}
    streamconv.convert(folder, tmp_path / "m.gguf", type="bf16")
    found = convert(tmp_path / "m.gguf", tmp_path / "a.sbs", **options)
    whole = convert(folder, tmp_path / "b.sbs", **options)
    assert {**found, "streamconv": b"", "tokenizer": b""} == {**whole, "streamconv": b"", "tokenizer": b""}
    assert found["tokenizer"] == b"unavailable"


def test_gguf_of_another_architecture_is_refused(tmp_path: Path, small: Path) -> None:
    streamconv.convert(small, tmp_path / "m.gguf", type="f16")
    with pytest.raises(BadInput, match=r"gemma\.cpp does not run 'llama'"):
        streamconv.plan(tmp_path / "m.gguf", tmp_path / "x.sbs", **AS)


@pytest.fixture
def small() -> Path:
    return DATA / "checkpoints" / "mistral-spm" / "hf"


def test_names_of_the_newest_transformers_and_heads_that_nobody_uses_change_nothing(tmp_path: Path) -> None:
    shapes, config = toys.paligemma()
    tensors = toys.random(shapes)
    moved = {"language_model.model.": "model.language_model.", "vision_tower.vision_model.": "model.vision_tower.",
             "multi_modal_projector.": "model.multi_modal_projector."}  # fmt: skip
    newest = {
        f"{to}{name.removeprefix(at)}": t
        for name, t in tensors.items()
        for at, to in moved.items()
        if name.startswith(at)
    }
    newest["lm_head.weight"] = newest["model.language_model.embed_tokens.weight"]
    found = convert(toys.written(tmp_path / "n", newest, config), tmp_path / "n.sbs", **AS_PALIGEMMA)
    whole = convert(toys.written(tmp_path / "m", tensors, config), tmp_path / "m.sbs", **AS_PALIGEMMA)
    assert {**found, "streamconv": b""} == {**whole, "streamconv": b""}
    assert toys.toc(found["toc"])["c_embedding"][3:5] == (32, 20)
    kernel = values(tensors, "vision_tower.vision_model.embeddings.patch_embedding.weight").transpose(0, 2, 3, 1)
    assert found["img_emb_kernel"] == bf16(kernel).tobytes()


def test_a_head_of_its_own_is_refused(tmp_path: Path) -> None:
    tensors = toys.random({f"model.{n}": s for n, s in toys.text_shapes().items()} | {"lm_head.weight": (32, 20)})
    folder = toys.gemma2(tmp_path / "m", tensors, tie_word_embeddings=False)
    with pytest.raises(BadInput, match="the output head is not the embedding"):
        streamconv.plan(folder, tmp_path / "x.sbs", **AS)
