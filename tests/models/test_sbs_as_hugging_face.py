"""Weight files of gemma.cpp as checkpoints of Hugging Face: names, shapes, values, config.json."""

from __future__ import annotations

import hashlib
import json
import struct
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sbs_files as files

import streamconv
from streamconv import sbs
from streamconv.errors import BadInput
from streamconv.models.gemma_cpp.hugging_face import as_hugging_face
from streamconv.rows import matrix_shape
from streamconv.sources import Checkpoint, open_checkpoint

DATA = Path(__file__).resolve().parents[1] / "data" / "sbs"
KINDS = ("gemma", "gemma2", "gemma3", "paligemma", "paligemma2", "gemma3v")


def opened(folder: Path, data: bytes, name: str = "x.sbs") -> Checkpoint:
    path = folder / name
    path.write_bytes(data)
    return as_hugging_face(open_checkpoint(path))


def values(checkpoint: Checkpoint, name: str) -> np.ndarray:
    rows = checkpoint.tensors[name]
    return rows.read(0, matrix_shape(rows.shape)[0]).reshape(rows.shape)


def equal(checkpoint: Checkpoint, wanted: dict[str, np.ndarray]) -> None:
    assert checkpoint.tensors.keys() == wanted.keys()
    for name, expected in wanted.items():
        assert checkpoint.tensors[name].shape == expected.shape, name
        assert np.array_equal(values(checkpoint, name), expected), name


@pytest.mark.parametrize("name", ["gemma2_a.bf16.split", "pg1_a.bf16.exporter"])
def test_files_of_the_reference_give_the_bits_of_the_checkpoint_they_were_made_from(name: str, tmp_path: Path) -> None:
    # Made by gemma.cpp's own writer; matrices of all layers but the first, and the embedding, are zeros here.
    images = np.load(DATA / "store_golden.npz")
    wanted = json.loads((DATA / "store_golden.json").read_text())["models"][name]
    found = opened(tmp_path, images[name].tobytes())
    assert found.tensors.keys() == wanted.keys()
    for tensor, (shape, digest) in wanted.items():
        words = np.ascontiguousarray(values(found, tensor)).view("<u4")
        assert list(words.shape) == shape
        assert not (words & 0xFFFF).any()
        assert hashlib.sha256((words >> 16).astype("<u2").tobytes()).hexdigest() == digest, tensor
    assert (found.side_bytes("tokenizer.model") or b"").startswith(b"\n")


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("layout", ["split", "exporter"])
@pytest.mark.parametrize("kind", KINDS)
def test_both_layouts_of_every_family_are_taken_apart(kind: str, layout: str, version: int, tmp_path: Path) -> None:
    toy = files.toy(kind, layout)
    equal(opened(tmp_path, toy.file(version)), toy.hf)


def test_layouts_may_differ_from_matrix_to_matrix_and_from_layer_to_layer(tmp_path: Path) -> None:
    toy, other = files.toy("gemma2", "split"), files.toy("gemma2", "exporter")
    for old, new in ((("att_w_0",), "att_ein_0"), (("qkv1_w_1", "qkv2_w_1"), "qkv_ein_1")):
        toy.drop(*old)
        toy.blobs[new], toy.toc[new] = other.blobs[new], other.toc[new]
    equal(opened(tmp_path, toy.file()), toy.hf)


def test_one_head_of_keys_and_as_many_as_queries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for n_heads, n_keys in ((4, 1), (1, 1), (2, 2)):
        monkeypatch.setattr(files, "H", n_heads)
        monkeypatch.setattr(files, "K", n_keys)
        for layout in ("split", "exporter"):
            toy = files.toy("gemma3", layout)
            equal(opened(tmp_path, toy.file()), toy.hf)


@pytest.mark.parametrize("kind", ["sfp", "nuq", "i8"])
@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_encoded_matrices_are_decoded_and_multiplied_by_their_scale(kind: str, factor: float, tmp_path: Path) -> None:
    toy = files.toy("gemma2", "exporter")
    key = "qkv_ein_1"
    rows, cols = (files.H + 2 * files.K) * files.Q, files.D
    x = np.random.default_rng(3).standard_normal(rows * cols).astype(np.float32)
    x *= np.float32(factor / max(1.0, np.abs(x).max() / 1.8))
    data, scale = sbs.encode(x, kind)
    toy.blobs[key] = data.tobytes()
    toy.toc[key] = files.entry(key, files.TYPES[kind.upper()], rows, cols, float(scale))
    whole = sbs.decode(data, kind, rows * cols, float(scale)).reshape(rows, cols)
    found = opened(tmp_path, toy.file())
    assert np.array_equal(values(found, "model.layers.1.self_attn.q_proj.weight"), whole[: files.H * files.Q])
    keys = [whole[files.H * files.Q + 2 * k * files.Q :][: files.Q] for k in range(files.K)]
    assert np.array_equal(values(found, "model.layers.1.self_attn.k_proj.weight"), np.concatenate(keys))
    is_exact = scale == 1 and kind != "i8"
    assert found.tensors["model.layers.1.self_attn.q_proj.weight"].dtype == ("BF16" if is_exact else "F32")


def test_plain_matrices_with_a_scale_are_multiplied_by_it(tmp_path: Path) -> None:
    toy = files.toy()
    toy.toc["linear_w_0"] = files.entry("linear_w_0", 2, files.D, files.F, 0.75)
    found = values(opened(tmp_path, toy.file()), "model.layers.0.mlp.down_proj.weight")
    assert np.array_equal(found, toy.hf["model.layers.0.mlp.down_proj.weight"] * np.float32(0.75))


# ---- config.json


def test_each_kind_has_the_class_of_transformers(tmp_path: Path) -> None:
    text = {"gemma": "GemmaForCausalLM", "gemma2": "Gemma2ForCausalLM", "gemma3": "Gemma3ForCausalLM"}
    images = dict.fromkeys(("paligemma", "paligemma2"), "PaliGemmaForConditionalGeneration")
    for kind, name in {**text, **images, "gemma3v": "Gemma3ForConditionalGeneration"}.items():
        found = opened(tmp_path, files.toy(kind).file()).config
        assert found["architectures"] == [name]
        inner = found.get("text_config", found)
        assert (inner["hidden_size"], inner["head_dim"], inner["vocab_size"]) == (files.D, files.Q, files.V)
        assert inner["num_key_value_heads"] == files.K
        if kind in (*images, "gemma3v"):
            assert found["vision_config"]["hidden_size"] == files.VIT
            assert found["vision_config"]["image_size"] == 28
            prepared = opened(tmp_path, files.toy(kind).file()).json("preprocessor_config.json") or {}
            assert (prepared["image_mean"], prepared["size"]) == ([0.5] * 3, {"height": 28, "width": 28})


def test_windows_caps_and_ends_are_told_as_transformers_tells_them(tmp_path: Path) -> None:
    toy = files.toy("gemma2", n_layers=3)
    found = opened(tmp_path, toy.file()).config
    assert found["layer_types"] == ["sliding_attention", "full_attention", "sliding_attention"]
    assert (found["sliding_window"], found["attn_logit_softcapping"], found["final_logit_softcapping"]) == (16, 50, 30)
    assert (found["query_pre_attn_scalar"], found["eos_token_id"]) == (files.Q, 1)
    toy.fields |= {"windows": [64, 64, 64], "wrapping": 0, "query_scale": 1}
    found = opened(tmp_path, toy.file()).config
    assert found["layer_types"] == ["sliding_attention", "full_attention", "sliding_attention"]
    assert (found["sliding_window"], found["query_pre_attn_scalar"], found["eos_token_id"]) == (64, 4, [1, 107])
    toy.fields["windows"] = [64, 16, 16]
    assert opened(tmp_path, toy.file()).config["layer_types"] == ["full_attention", *["sliding_attention"] * 2]


def test_layers_of_gemma_3_have_a_window_where_the_runtime_takes_them_for_such(tmp_path: Path) -> None:
    """By that it decides between two bases of RoPE, whichever of the two lengths is the longer."""
    toy = files.toy("gemma3", n_layers=3)
    for windows, sliding in (([64] * 3, [0, 0, 0]), ([64, 16, 64], [0, 1, 0]), ([4096, 64, 4096], [1, 0, 1])):
        toy.fields["windows"] = windows
        found = opened(tmp_path, toy.file()).config["layer_types"]
        assert found == [("full_attention", "sliding_attention")[each] for each in sliding]


def test_where_all_sizes_are_those_of_a_published_model_its_long_texts_come_back(tmp_path: Path) -> None:
    from streamconv.models.gemma_cpp.config_json import config_json
    from streamconv.models.gemma_cpp.deduced import deduced_config

    keys = {"c_embedding": 1, "linear_w_33": 1}
    found = config_json(deduced_config(keys, "x"), 262144, tmp_path)
    assert (found["max_position_embeddings"], found["rope_scaling"]["factor"]) == (131072, 8.0)
    assert (found["rope_theta"], found["rope_local_base_freq"]) == (1e6, 1e4)
    largest = config_json(deduced_config({"linear_w_61": 1}, "x"), 262144, tmp_path)
    assert largest["query_pre_attn_scalar"] == 168
    assert config_json(deduced_config({"linear_w_45": 1}, "x"), 256000, tmp_path)["query_pre_attn_scalar"] == 144
    assert opened(tmp_path, files.toy("gemma3").file()).config["rope_scaling"] is None


# ---- what is refused


def refused(folder: Path, toy: files.Toy, *words: str) -> None:
    with pytest.raises(BadInput) as told:
        opened(folder, toy.file())
    for word in (str(folder / "x.sbs"), *words):
        assert word in str(told.value)


def test_what_is_missing_is_named_with_what_could_stand_in_its_place(tmp_path: Path) -> None:
    for key, also in (("linear_w_1", ""), ("qkv2_w_0", "qkv_ein_0"), ("pre_att_ns_1", ""), ("att_w_0", "att_ein_0")):
        toy = files.toy()
        toy.drop(key)
        refused(tmp_path, toy, f"'{key}' is missing", also)


def test_both_layouts_of_one_matrix_are_refused(tmp_path: Path) -> None:
    toy, other = files.toy("gemma2", "split"), files.toy("gemma2", "exporter")
    toy.blobs["att_ein_1"], toy.toc["att_ein_1"] = other.blobs["att_ein_1"], other.toc["att_ein_1"]
    refused(tmp_path, toy, "'att_ein_1'", "'att_w_1'")


def test_shapes_sizes_and_types_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    toy = files.toy()
    toy.toc["linear_w_0"] = files.entry("linear_w_0", 2, files.F, files.D)
    refused(tmp_path, toy, "'linear_w_0'", "[24, 16]", "[16, 24]")
    toy = files.toy()
    toy.blobs["linear_w_0"] += b"\0\0"
    refused(tmp_path, toy, "'linear_w_0'", "768 bytes", "770")
    for number in (0, 5, 7, 99):
        toy = files.toy()
        toy.toc["linear_w_0"] = files.entry("linear_w_0", number, files.D, files.F)
        refused(tmp_path, toy, "'linear_w_0'")
    toy = files.toy()
    toy.toc["ghost"] = files.entry("linear_w_0", 2, files.D, files.F)
    refused(tmp_path, toy, "two entries", "linear_w_0")


def test_what_no_class_of_transformers_computes_is_refused(tmp_path: Path) -> None:
    def changed(kind: str = "gemma2", layer: dict[str, int] | None = None, **fields: Any) -> files.Toy:
        toy = files.toy(kind)
        toy.fields |= fields
        toy.layers[1] |= layer or {}
        return toy

    for layer in ({"activation": 1}, {"post_qk": 1}, {"optimized_gating": 1}):
        refused(tmp_path, changed(layer=layer), "layer 1")
    toy = files.toy(n_layers=3)
    toy.fields["windows"] = [8, 64, 16]
    refused(tmp_path, toy, "windows of 8 and 16")
    refused(tmp_path, changed("gemma", windows=[16, 64]), "first Gemma")
    refused(tmp_path, changed(windows=[64]), "1 windows for 2 layers")
    refused(tmp_path, changed(query_scale=2), "'query_scale'")
    refused(tmp_path, changed("gemma3v", vit={**files.toy("gemma3v").fields["vit"], "image_size": 42}), "42 pixels")
    refused(tmp_path, changed(model=2), "Gemma 7B")


def test_a_bias_that_gemma_3_has_no_place_for_is_refused_unless_it_is_zero(tmp_path: Path) -> None:
    toy = files.toy("gemma3v")
    toy.put("img_head_bias", np.eye(1, files.D), "F32")
    refused(tmp_path, toy, "'img_head_bias'", "not zero")


def test_what_is_left_out_is_told(tmp_path: Path) -> None:
    toy = files.toy()
    toy.put("extra", np.ones(4))
    found = opened(tmp_path, toy.file())
    equal(found, toy.hf)
    assert any("'extra'" in note for note in found.warnings)
    assert any("no tokenizer" in note for note in found.warnings)


def test_a_tokenizer_beside_a_file_that_has_none_is_taken(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.spm").write_bytes(b"\n\5\n\3<s>")
    found = opened(tmp_path, files.toy().file())
    assert found.side_bytes("tokenizer.model") == b"\n\5\n\3<s>"


def test_a_tokenizer_that_is_damaged_is_told_and_passed_on(tmp_path: Path) -> None:
    toy = files.toy()
    toy.tokenizer = b"garbage"
    found = opened(tmp_path, toy.file())
    assert found.side_bytes("tokenizer.model") == b"garbage"
    assert [w for w in found.warnings if "x.sbs, tokenizer" in w and "passed on as it is" in w]


def test_layers_of_images_may_have_their_number_of_before_september_2025(tmp_path: Path) -> None:
    toy = files.toy("paligemma")
    for layer in toy.image_layers:
        layer["type"] = 2
    equal(opened(tmp_path, toy.file()), toy.hf)


# ---- files of before May 2025


def old_file(path: Path, type_: str = "$", scales: int | None = None) -> dict[str, int]:
    """A sparse file of Gemma 3 270M with prefixed keys; where each blob is."""
    d, f, h, q, v, n_layers = 640, 2048, 4, 256, 262144, 18
    sizes = {"Bc_embedding": 2 * v * d, "Bc_final_norm": 2 * d}
    for n in range(n_layers):
        matrices = {"att_ein": h * d * q, "qkv_ein": (h + 2) * q * d, "gating_ein": 2 * f * d, "linear_w": d * f}
        sizes |= {f"{type_}{key}_{n}": size for key, size in matrices.items()}
        sizes |= {f"B{key}_{n}": 2 * d for key in ("pre_att_ns", "post_att_ns", "pre_ff_ns", "post_ff_ns")}
        sizes |= {f"B{key}_{n}": 2 * q for key in ("key_norm", "query_norm")}
    if scales is not None:
        sizes["Fscales"] = 4 * scales
    at = -(-(16 + 32 * len(sizes)) // 256) * 256
    places = {}
    for key, size in sizes.items():
        places[key] = at
        at += -(-size // 256) * 256
    with path.open("wb") as file:
        file.write(struct.pack("<IIQ", files.MAGIC, len(sizes), at))
        file.write(b"".join(key.encode().ljust(16, b"\0") for key in sizes))
        file.write(b"".join(struct.pack("<QQ", places[key], size) for key, size in sizes.items()))
        file.truncate(at)
    return places


def test_files_without_a_configuration_are_the_model_that_their_keys_are_of(tmp_path: Path) -> None:
    path = tmp_path / "old.sbs"
    places = old_file(path, scales=4 * 18)
    with path.open("r+b") as file:
        file.seek(places["Fscales"])
        file.write(np.arange(1, 4 * 18 + 1, dtype="<f4").tobytes())
        for key, number in (("$qkv_ein_1", 0x40), ("$linear_w_2", 0x41), ("Bpre_ff_ns_0", 0x80)):
            file.seek(places[key])
            file.write(bytes([number]) * 640)
    found = as_hugging_face(open_checkpoint(path))
    assert found.config["architectures"] == ["Gemma3ForCausalLM"]
    assert (found.config["num_hidden_layers"], found.config["intermediate_size"]) == (18, 2048)
    assert found.tensors["model.embed_tokens.weight"].shape == (262144, 640)
    one = sbs.decode(np.array([0x40, 0x41], np.uint8), "sfp", 2)
    query = found.tensors["model.layers.1.self_attn.q_proj.weight"].read(0, 2)
    assert (query[0] == one[0] * 6).all()
    assert not query[1].any()
    assert found.tensors["model.layers.2.mlp.down_proj.weight"].read(0, 1)[0, 0] == one[1] * 12
    assert sum(prod(rows.shape) for rows in found.tensors.values()) == 268098176
    assert any("no configuration" in note for note in found.warnings)


def test_scales_that_are_not_those_of_the_tensors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "old.sbs"
    old_file(path, scales=71)
    with pytest.raises(BadInput, match=r"71 scales.* 72 tensors"):
        as_hugging_face(open_checkpoint(path))


def test_nuq_in_a_file_that_does_not_tell_its_order_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "old.sbs"
    old_file(path, "2")
    with pytest.raises(BadInput, match="NUQ"):
        as_hugging_face(open_checkpoint(path))


def test_keys_of_no_known_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no model that is known"):
        opened(tmp_path, files.store({"Bc_embedding": b"12", "Bx_4": b"12"}))


# ---- whole conversions


def test_a_file_and_the_folder_made_of_it_give_the_same_gguf(tmp_path: Path) -> None:
    images = np.load(DATA / "store_golden.npz")
    source = tmp_path / "model.sbs"
    source.write_bytes(images["gemma2_a.bf16.split"].tobytes())
    folder = tmp_path / "folder"
    streamconv.convert(source, folder)
    assert (folder / "tokenizer.model").read_bytes()
    assert (folder / "config.json").exists()
    made = [tmp_path / "a.gguf", tmp_path / "b.gguf"]
    for each, out in zip((source, folder), made, strict=True):
        streamconv.convert(each, out, type="Q4_K_M", model_name="x")
    a, b = (out.read_bytes() for out in made)
    at = a.index(b"streamconv.job") + len("streamconv.job") + 12  # which names the job
    assert len(a) == len(b)
    assert a[:at] == b[:at]
    assert a[at + 64 :] == b[at + 64 :]


def test_open_gives_the_names_of_hugging_face(tmp_path: Path) -> None:
    toy = files.toy()
    (tmp_path / "x.sbs").write_bytes(toy.file())
    assert streamconv.open(tmp_path / "x.sbs").keys() == toy.hf.keys()
