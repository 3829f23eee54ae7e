"""Mistral's own layout: params.json, consolidated*.safetensors, and tekken.json or a versioned tokenizer.model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from gguf_reader import Tensor, read
from own_layout import PARAMS, SHAPES, own_layout, tekken, values
from small_models import write_safetensors

import streamconv
from streamconv.conversion import Options, prepare
from streamconv.errors import BadInput, InputMissing, UsageError
from streamconv.models.config import normalise
from streamconv.models.tokenizers.brought_along import brought_template
from streamconv.sources.checkpoint import Checkpoint

YARN = {"original_max_position_embeddings": 64, "factor": 4.0, "apply_scale": False, "beta": 32, "alpha": 1}
MOE = {
    "num_experts": 2, "num_experts_per_tok": 1, "expert_hidden_dim": 16, "first_k_dense_replace": 0, "num_shared_experts": 1,
    "route_every_n": 1, "num_expert_groups": 1, "num_expert_groups_per_tok": 1, "routed_scale": 1.5, "expert_parallel": 8,
}  # fmt: skip
LATENT = {"q_lora_rank": None, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8}


class Found(NamedTuple):
    """Values of the keys, and tensors."""

    kv: dict[str, Any]
    tensors: dict[str, Tensor]


def converted(folder: Path, **options: Any) -> Found:
    out = folder.parent / "x.gguf"
    streamconv.convert(folder, out, type="f32", threads=1, mistral_format=True, force=True, **options)
    found = read(out)
    return Found({k: v[1] if kind == "ARRAY" else v for k, (kind, v) in found.keys.items()}, found.tensors)


def notes(folder: Path, **options: Any) -> str:
    return " ".join(prepare(folder, folder.parent / "x.gguf", Options(mistral_format=True, **options)).warnings)


def test_names_become_those_of_llama_and_rows_stay_where_they_are(tmp_path: Path) -> None:
    found = converted(own_layout(tmp_path / "m"))
    assert found.kv["general.architecture"] == "llama"
    assert found.kv["llama.rope.dimension_count"] == 8
    assert found.kv["llama.vocab_size"] == 280
    assert "llama.rope.scaling.type" not in found.kv
    for name, source in (("attn_q", "attention.wq"), ("attn_k", "attention.wk"), ("ffn_gate", "feed_forward.w1")):
        stored = values(f"layers.0.{source}", SHAPES[f"layers.0.{source}"])
        assert found.tensors[f"blk.0.{name}.weight"].data == stored.tobytes()


@pytest.mark.parametrize(("apply", "multiplier"), [(False, 1.0), (True, 0.0), (None, 1.0)])
def test_yarn_is_written_with_its_multiplier(tmp_path: Path, apply: bool | None, multiplier: float) -> None:
    yarn = {k: v for k, v in {**YARN, "apply_scale": apply}.items() if v is not None}
    kv = converted(own_layout(tmp_path / "m", yarn=yarn)).kv
    scaling = {key.removeprefix("llama.rope.scaling."): v for key, v in kv.items() if ".rope.scaling." in key}
    assert scaling == {
        "type": "yarn", "factor": 4.0, "original_context_length": 64, "yarn_beta_fast": 32.0, "yarn_beta_slow": 1.0,
        "yarn_log_multiplier": multiplier,
    }  # fmt: skip


def test_attention_that_grows_with_the_text_is_of_another_architecture(tmp_path: Path) -> None:
    grows = {"original_max_position_embeddings": 64, "beta": 0.5}
    folder = own_layout(tmp_path / "m", yarn=YARN, llama_4_scaling=grows)
    kv = converted(folder).kv
    assert kv["general.architecture"] == "mistral3"
    assert kv["mistral3.attention.temperature_scale"] == 0.5
    assert "begins at" not in notes(folder)
    params = {**PARAMS, "yarn": YARN, "llama_4_scaling": {**grows, "original_max_position_embeddings": 32}}
    (folder / "params.json").write_text(json.dumps(params))
    assert "begins at 32 tokens, runtimes begin where yarn does, at 64" in notes(folder)


def mixture(folder: Path, **params: Any) -> Path:
    shapes = {
        "attention.wq": (64, 32), "attention.wkv_a_with_mqa": (24, 32), "attention.kv_a_norm": (16,), "attention.wkv_b": (64, 16),
        "attention.wo": (32, 32), "gate": (2, 32),
        **{f"{module}.{w}": (32, 16) if w == "w2" else (16, 32)
           for module in ("experts.0", "experts.1", "shared_experts") for w in ("w1", "w2", "w3")},
    }  # fmt: skip
    more = {f"layers.0.{name}.weight": ("F32", values(name, shape)) for name, shape in shapes.items()}
    gone = ("layers.0.attention.", "layers.0.feed_forward", "head_dim", "n_kv_heads")
    return own_layout(folder, gone, more, n_kv_heads=4, moe=MOE, **LATENT, **params)


def test_a_mixture_is_deepseeks_with_softmax(tmp_path: Path) -> None:
    found = converted(mixture(tmp_path / "m", yarn={**YARN, "apply_scale": True}))
    kv = {key.removeprefix("deepseek2."): value for key, value in found.kv.items()}
    assert kv["general.architecture"] == "deepseek2"
    assert (kv["expert_gating_func"], kv["expert_weights_norm"], kv["expert_weights_scale"]) == (1, True, 1.5)
    assert kv["rope.scaling.yarn_log_multiplier"] == np.float32(0.1)
    assert kv["attention.temperature_length"] == 64
    assert "attention.q_lora_rank" not in kv
    assert "attention.temperature_scale" not in kv
    first = values("experts.0.w1", (16, 32)), values("experts.1.w1", (16, 32))
    assert found.tensors["blk.0.ffn_gate_exps.weight"].data == np.stack(first).tobytes()
    halves = values("attention.wkv_b", (64, 16)).reshape(4, 16, 16)
    assert found.tensors["blk.0.attn_k_b.weight"].data == halves[:, :8].transpose(0, 2, 1).tobytes()
    assert found.tensors["blk.0.attn_v_b.weight"].data == halves[:, 8:].tobytes()


def test_what_trained_a_mixture_is_not_told_and_what_is_not_known_is(tmp_path: Path) -> None:
    assert "does not know" not in notes(mixture(tmp_path / "m", yarn=YARN))
    folder = own_layout(tmp_path / "n", colour="red")
    assert f"{folder}/params.json says 'colour'" in notes(folder)


@pytest.mark.parametrize("values", [{"rope_theta": -1.0}, {"rope_scaling": "none"}, {"hidden_size": "wide"}, {}])
def test_messages_name_the_file_that_was_read(values: dict[str, Any]) -> None:
    checkpoint = Checkpoint(Path("m"), {}, values, (), config_file="params.json")
    with pytest.raises(BadInput) as caught:
        assert normalise(values, {}, checkpoint).integer("hidden_size")
    assert "params.json" in caught.value.message
    assert "config.json" not in caught.value.message


def test_experts_of_mixtral_are_refused_by_what_they_lack(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="those of Mixtral"):
        converted(own_layout(tmp_path / "m", moe={"num_experts": 8, "num_experts_per_tok": 2}))


def test_a_blocked_router_that_leaves_layers_out_is_refused(tmp_path: Path) -> None:
    folder = mixture(tmp_path / "m")
    params = json.loads((folder / "params.json").read_text())
    (folder / "params.json").write_text(json.dumps({**params, "moe": {**MOE, "route_every_n": 2}}))
    with pytest.raises(BadInput, match="'moe_layer_freq' is 2"):
        converted(folder)


def test_eight_bit_weights_are_multiplied_by_their_scale(tmp_path: Path) -> None:
    codes = np.arange(0, 32 * 32, dtype=np.uint32).astype(np.uint8).reshape(32, 32) & 0x77
    more = {
        "layers.0.attention.wq.weight": ("F8_E4M3", codes),
        "layers.0.attention.wq.qscale_weight": ("F32", np.array(0.5, "<f4")),
        "layers.0.attention.wq.qscale_act": ("F32", np.array(3.0, "<f4")),
    }
    section = {"qformat_weight": "fp8_e4m3", "qscheme_act": "TENSOR"}
    found = converted(own_layout(tmp_path / "m", more=more, quantization=section))
    exponent, fraction = codes >> 3 & 15, codes & 7
    plain = np.where(exponent == 0, fraction / 512, (8 + fraction) * 2.0 ** (exponent.astype(int) - 10))
    assert found.tensors["blk.0.attn_q.weight"].data == (plain * 0.5).astype("<f4").tobytes()


@pytest.mark.parametrize(
    ("params", "why"),
    [
        ({"quantization": {"qformat_weight": "int4"}}, "'qformat_weight' is"), ({"dim": None}, "'dim' is missing"),
        ({"n_heads": "4"}, "'n_heads' is"), ({"yarn": 3}, "'yarn' is"), ({"moe": [1]}, "'moe' is"),
        ({"yarn": {"factor": 2}}, "'yarn' has no number 'original_max_position_embeddings'"),
        ({"llama_4_scaling": {"beta": "x"}}, "'llama_4_scaling' has no number 'beta'"),
    ],
)  # fmt: skip
def test_params_that_make_no_sense_are_refused_by_key_and_file(tmp_path: Path, params: Any, why: str) -> None:
    with pytest.raises(BadInput, match=rf"params\.json: {why}"):
        converted(own_layout(tmp_path / "m", **params))


def test_the_context_is_the_longest_that_is_said_else_that_of_the_runtimes(tmp_path: Path) -> None:
    kv = converted(own_layout(tmp_path / "m", ("max_position_embeddings",), max_seq_len=512)).kv
    assert kv["llama.context_length"] == 512
    folder = own_layout(tmp_path / "n", ("max_position_embeddings",))
    assert converted(folder).kv["llama.context_length"] == 128_000
    assert "says no context length: 128000" in notes(folder)


def test_a_window_is_told_and_a_tied_head_left_out(tmp_path: Path) -> None:
    folder = own_layout(tmp_path / "m", ("output",), tied_embeddings=True, sliding_window=16)
    assert "'sliding_window' is 16" in notes(folder)
    assert "output.weight" not in converted(folder).tensors


def test_other_modules_are_left_out(tmp_path: Path) -> None:
    names = (
        "vision_encoder.ln_pre",
        "vision_language_adapter.w_in",
        "patch_merger.merging_layer",
        "pre_mm_projector_norm",
    )
    more = {f"{name}.weight": ("F32", values(name, (4,))) for name in names}
    folder = own_layout(tmp_path / "m", more=more, vision_encoder={"hidden_size": 4})
    assert not {name for name in converted(folder).tensors if not name.startswith(("blk.", "output", "token"))}
    assert "does not know" not in notes(folder)


# The tokenizer


def test_special_tokens_go_before_the_ranks_and_fillers_take_their_places(tmp_path: Path) -> None:
    folder = own_layout(tmp_path / "m")
    listed = [
        {"rank": rank, "token_str": text} for rank, text in ((0, "<unk>"), (2, "</s>"), (1, "<s>"), (4, "[INST]"))
    ]
    (folder / "tekken.json").write_text(json.dumps(tekken(special=listed)))
    kv = converted(folder).kv
    texts = kv["tokenizer.ggml.tokens"]
    assert texts[:7] == ["<unk>", "<s>", "</s>", "<SPECIAL_3>", "[INST]", "<SPECIAL_5>", "<SPECIAL_6>"]
    assert texts[20 + 32 : 20 + 34] == ["Ġ", "!"]
    assert texts[-4:] == ["ab", "abab", "bab", "Ġa"]
    assert kv["tokenizer.ggml.merges"] == ["a b", "a bab", "ab ab", "b ab", "Ġ a"]
    assert kv["tokenizer.ggml.padding_token_id"] == 2, "the end where there is no padding"
    assert kv["tokenizer.ggml.bos_token_id"] == 1
    assert (kv["tokenizer.ggml.add_bos_token"], kv["tokenizer.ggml.add_eos_token"]) == (True, False)


@pytest.mark.parametrize(
    ("found", "why"),
    [
        ({}, "has no 'config'"), (tekken(default_vocab_size=300), "'vocab' has 261 tokens, 'config' says 280"),
        (tekken(default_vocab_size="x"), "'default_vocab_size' is"), (tekken(default_vocab_size=10), "beyond the model's"),
        (tekken(special=[{"rank": 0, "token_str": "a"}, {"rank": 0, "token_str": "b"}]), "has no rank of its own below 20"),
        (tekken(special=[{"rank": 20, "token_str": "a"}]), "has no rank of its own"), (tekken(special=3), "has no rank"),
        ({**tekken(), "vocab": [{"rank": 1, "token_bytes": "AA=="}] * 300}, "entry 0 of 'vocab'"),
        ({**tekken(), "vocab": [3] * 300}, "entry 0 of 'vocab'"),
    ],
)  # fmt: skip
def test_a_damaged_tekken_file_is_refused(tmp_path: Path, found: Any, why: str) -> None:
    folder = own_layout(tmp_path / "m")
    (folder / "tekken.json").write_text(json.dumps(found))
    with pytest.raises(BadInput, match=rf"tekken\.json.*{why}"):
        converted(folder)


@pytest.mark.parametrize(
    ("version", "name"), [("v1", "mistral-v1"), ("v3", "mistral-v3-tekken"), ("v7", "mistral-v7-tekken")]
)
def test_a_template_is_named_by_the_version(tmp_path: Path, version: str, name: str) -> None:
    folder = own_layout(tmp_path / "m")
    (folder / "tekken.json").write_text(json.dumps(tekken(version)))
    assert converted(folder).kv["tokenizer.chat_template"] == name


def test_a_version_without_a_known_template_is_told_and_a_template_of_the_folder_taken(tmp_path: Path) -> None:
    folder = own_layout(tmp_path / "m")
    (folder / "tekken.json").write_text(json.dumps(tekken("v15")))
    assert "is of a version whose chat template is not known" in notes(folder)
    assert "tokenizer.chat_template" not in converted(folder).kv
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    assert converted(folder).kv["tokenizer.chat_template"] == "{{ messages }}"
    assert "not known" not in notes(folder)


@pytest.mark.parametrize(("version", "says"), [("v11", "[SYSTEM_PROMPT]"), ("v13", "Unsloth")])
def test_versions_whose_template_has_no_name_get_its_text(tmp_path: Path, version: str, says: str) -> None:
    folder = own_layout(tmp_path / "m")
    (folder / "tekken.json").write_text(json.dumps(tekken(version)))
    template = converted(folder).kv["tokenizer.chat_template"]
    assert template == brought_template(f"mistral-{version}")
    assert says in template


@pytest.mark.parametrize(
    ("names", "template"),
    [
        (["tokenizer.model"], "mistral-v1"), (["tokenizer.model.v3"], "mistral-v3"), (["tokenizer.model.v7m1"], "mistral-v7"),
        (["tokenizer.model", "tokenizer.model.v3"], "mistral-v3"),
    ],
)  # fmt: skip
def test_a_versioned_sentencepiece_model_is_read_where_there_is_no_tekken(
    tmp_path: Path, data: Path, names: list[str], template: str
) -> None:
    pieces = (data / "checkpoints" / "mistral-spm" / "hf" / "tokenizer.model").read_bytes()
    folder = own_layout(tmp_path / "m")
    (folder / "tekken.json").unlink()
    for name in names:
        (folder / name).write_bytes(pieces)
    kv = converted(folder, vocab_only=True).kv
    assert kv["tokenizer.ggml.model"] == "llama"
    assert kv["tokenizer.chat_template"] == template
    assert kv["llama.vocab_size"] == len(kv["tokenizer.ggml.tokens"])
    assert kv["tokenizer.ggml.bos_token_id"] == 1
    assert "tokenizer.ggml.pre" not in kv


# Which layout is read


def test_a_merge_of_two_is_converted_like_one(tmp_path: Path) -> None:
    folders = [own_layout(tmp_path / name) for name in "ab"]
    models = "".join(f"- model: {folder}\n  parameters: {{weight: 0.5}}\n" for folder in folders)
    (tmp_path / "r.yml").write_text(f"merge_method: linear\nmodels:\n{models}")
    merged, plain = converted(tmp_path / "r.yml"), converted(folders[0])
    assert {n: t.data for n, t in merged.tensors.items()} == {n: t.data for n, t in plain.tensors.items()}
    own = ("general.", "streamconv.")
    assert {k: v for k, v in merged.kv.items() if not k.startswith(own)} == {
        k: v for k, v in plain.kv.items() if not k.startswith(own)
    }


def test_without_the_option_the_message_names_it(tmp_path: Path) -> None:
    folder = own_layout(tmp_path / "m")
    with pytest.raises(InputMissing) as caught:
        prepare(folder, tmp_path / "x.gguf", Options())
    assert "--mistral-format" in caught.value.hint
    (folder / "config.json").write_text('{"architectures": ["MistralForCausalLM"]}')
    with pytest.raises(InputMissing, match="has no weights") as caught:
        prepare(folder, tmp_path / "x.gguf", Options())
    assert "--mistral-format" in caught.value.hint


def test_where_both_layouts_are_there_the_option_chooses(tmp_path: Path, tiny_model: Path) -> None:
    folder = own_layout(tmp_path / "m")
    for file in tiny_model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    assert "'model.safetensors' is ignored" in notes(folder)
    assert converted(folder).kv["llama.embedding_length"] == 32
    plain = prepare(folder, tmp_path / "y.gguf", Options())
    assert "'consolidated.safetensors' is ignored" in " ".join(plain.warnings)


def test_the_option_asks_for_a_folder_of_that_layout(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(InputMissing, match=r"no params\.json") as caught:
        converted(tiny_model)
    assert "leave --mistral-format out" in caught.value.hint
    folder = own_layout(tmp_path / "m")
    with pytest.raises(BadInput, match="is a file: --mistral-format needs the folder"):
        converted(folder / "consolidated.safetensors")
    with pytest.raises(UsageError, match="--mistral-format has no effect on"):
        prepare(folder, tmp_path / "out", Options(mistral_format=True))
    (folder / "consolidated.safetensors").unlink()
    with pytest.raises(InputMissing, match=r"has no weights: neither consolidated\*\.safetensors"):
        converted(folder)


def test_parts_are_read_by_their_index(tmp_path: Path) -> None:
    folder = own_layout(tmp_path / "m")
    expected = {name: tensor.data for name, tensor in converted(folder).tensors.items()}
    tensors = {f"{name}.weight": ("F32", values(name, shape)) for name, shape in SHAPES.items()}
    (folder / "consolidated.safetensors").unlink()
    names = [f"consolidated-0000{n}-of-00002.safetensors" for n in (1, 2)]
    for n, name in enumerate(names):
        write_safetensors(folder / name, dict(list(tensors.items())[n::2]))
    assert {name: tensor.data for name, tensor in converted(folder).tensors.items()} == expected
    where = {name: names[n % 2] for n, name in enumerate(tensors)}
    (folder / "consolidated.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    assert {name: tensor.data for name, tensor in converted(folder).tensors.items()} == expected
