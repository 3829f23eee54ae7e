"""LoRA adapters as GGUF files: the recorded bytes, the scale, what is refused, and what they make of their base."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf_reader
import numpy as np
import pytest
from small_models import Tensors, changed, read_safetensors, write_safetensors

import streamconv
from streamconv import sources
from streamconv.conversion.adapter_model import adapter_model
from streamconv.conversion.applying import parse
from streamconv.errors import BadInput, StreamconvError, UsageError
from streamconv.kit import Constant
from streamconv.merging.mlx_adapter import as_peft
from streamconv.models import FAMILIES, build
from streamconv.models.config import architecture
from streamconv.rows import Rows, matrix_shape
from streamconv.sources.checkpoint import Checkpoint

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "models"))
import toys

P = "base_model.model.model.layers.0."
RECORDED = ("adapters", "adapter")
Config = dict[str, Any]


@pytest.fixture
def qwen(data: Path) -> Path:
    return data / "checkpoints" / "qwen2-yarn" / "hf"


@pytest.fixture
def recorded(data: Path) -> Path:
    return data.joinpath(*RECORDED)


def values(rows: Rows) -> np.ndarray:
    return rows.read(0, matrix_shape(rows.shape)[0]).reshape(rows.shape)


def adapter(
    source: Path,
    folder: Path,
    tensors: Callable[[Tensors], Tensors] = lambda t: t,
    config: Callable[[Config], Any] = lambda c: None,
) -> Path:
    """A copy of the adapter ``source`` with its tensors and its configuration changed."""
    shutil.copytree(source, folder)
    for path in folder.iterdir():
        path.chmod(0o644)
    weights = folder / "adapter_model.safetensors"
    write_safetensors(weights, tensors(read_safetensors(weights)))
    said = json.loads((folder / "adapter_config.json").read_text())
    config(said)
    (folder / "adapter_config.json").write_text(json.dumps(said))
    return folder


def without_norms(tensors: Tensors) -> Tensors:
    return {name: value for name, value in tensors.items() if "norm" not in name}


def made(source: Path, out: Path, **options: Any) -> Checkpoint:
    streamconv.convert(source, out, threads=1, **options)
    return sources.open_checkpoint(out)


def test_the_files_are_those_of_the_reference(data: Path, recorded: Path, qwen: Path, tmp_path: Path) -> None:
    out = tmp_path / "x-{type}.gguf"
    streamconv.convert(recorded, out, type="f32,f16,bf16,q8_0", base=qwen, threads=1)
    for kind in ("f32", "f16", "bf16", "q8_0"):
        dump = json.loads((data / "adapters" / f"{kind}.dump.json").read_text())
        found = gguf_reader.read(tmp_path / f"x-{kind.upper()}.gguf")
        assert {name: (t.ne, t.sha256) for name, t in found.tensors.items()} == {
            t["name"]: (tuple(t["ne"]), t["sha256"]) for t in dump["tensors"]
        }
        assert {key: found.keys.get(key) for key in dump["kv"]} == {
            key: (v["type"], v["value"]) for key, v in dump["kv"].items()
        }


def test_factors_are_f32_where_no_type_is_asked_for(recorded: Path, qwen: Path, tmp_path: Path) -> None:
    found = made(recorded, tmp_path / "x.gguf", base=qwen)
    assert {rows.dtype for rows in found.tensors.values()} == {"F32"}


def test_the_base_is_found_by_what_the_adapter_says(recorded: Path, qwen: Path, tmp_path: Path) -> None:
    source = adapter(recorded, tmp_path / "a", config=lambda c: c.update(base_model_name_or_path=str(qwen)))
    made(source, tmp_path / "x.gguf")
    made(source, tmp_path / "y.gguf", base=qwen)
    assert gguf_reader.read(tmp_path / "x.gguf").tensors == gguf_reader.read(tmp_path / "y.gguf").tensors


@pytest.mark.parametrize("said", [None, "", 7, "nowhere/at-all/x"])
def test_a_base_that_cannot_be_had_is_asked_for(said: Any, recorded: Path, tmp_path: Path) -> None:
    source = adapter(recorded, tmp_path / "a", config=lambda c: c.update(base_model_name_or_path=said))
    with pytest.raises(StreamconvError) as e:
        made(source, tmp_path / "x.gguf", offline=True)
    assert "--base" in e.value.hint


def test_only_the_configuration_of_the_base_is_needed(recorded: Path, qwen: Path, tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    shutil.copyfile(qwen / "config.json", tmp_path / "base" / "config.json")
    alone = made(recorded, tmp_path / "x.gguf", base=tmp_path / "base")
    same(alone, made(recorded, tmp_path / "y.gguf", base=qwen))


@pytest.mark.parametrize(("config", "alpha", "scales"), [
    ({}, 16.0, {}),
    ({"use_rslora": True}, 16.0 * 8**0.5, {}),
    ({"alpha_pattern": {"v_proj": 4}}, 16.0, {"attn_v": 0.25}),
    ({"use_rslora": True, "alpha_pattern": {"v_proj": 32}}, 16.0 * 8**0.5, {"attn_v": 2.0}),
])  # fmt: skip
def test_alpha_by_rank_is_the_true_scale(
    config: Config, alpha: float, scales: dict[str, float], recorded: Path, qwen: Path, tmp_path: Path
) -> None:
    plain = made(recorded, tmp_path / "plain.gguf", base=qwen)
    found = made(adapter(recorded, tmp_path / "a", config=lambda c: c.update(config)), tmp_path / "x.gguf", base=qwen)
    assert found.metadata is not None
    assert found.metadata.get("adapter.lora.alpha") == np.float32(alpha)
    for name, rows in found.tensors.items():
        factor = next((by for part, by in scales.items() if part in name and name.endswith("lora_b")), 1.0)
        assert np.array_equal(values(rows), np.float32(factor) * values(plain.tensors[name])), name


Q = f"{P}self_attn.q_proj"
HEAD, EMBEDDING = "base_model.model.lm_head", "base_model.model.model.embed_tokens"
K, FAR = f"{P}self_attn.k_proj", "base_model.model.model.layers.7.self_attn.k_proj"
#: what the message says -> tensors that the adapter has besides, and settings
EXTRA: dict[str, tuple[dict[str, tuple[int, ...]], Config]] = {
    "DoRA": ({f"{Q}.lora_magnitude_vector": (64,)}, {"use_dora": True}),
    "lora_magnitude_vector": ({f"{Q}.lora_magnitude_vector": (64,)}, {}),
    "lora_B.bias": ({f"{Q}.lora_B.bias": (64,)}, {}),
    "embed_tokens": ({f"{EMBEDDING}.weight": (512, 64)}, {}),
    "k_proj.bias": ({f"{K}.bias": (32,)}, {}),
    "token_adapter": ({f"{EMBEDDING}.token_adapter.trainable_tokens_delta": (1, 64)}, {}),
    "its head is the embedding": ({f"{HEAD}.lora_A.weight": (8, 64), f"{HEAD}.lora_B.weight": (512, 8)}, {}),
    "changes 513 rows": ({f"{EMBEDDING}.lora_embedding_A": (8, 513), f"{EMBEDDING}.lora_embedding_B": (64, 8)}, {}),
    "lora_alpha 0": ({}, {"lora_alpha": 0}),
    "LOHA": ({}, {"peft_type": "LOHA"}),
    "no lora_A": ({f"{K}.lora_B.weight": (32, 8)}, {}),
    "cannot be multiplied": ({f"{K}.lora_A.weight": (8, 64), f"{K}.lora_B.weight": (32, 4)}, {}),
    "no place": ({f"{P}self_attn.x_proj.lora_A.weight": (8, 64), f"{P}self_attn.x_proj.lora_B.weight": (32, 8)}, {}),
    "lies beyond": ({f"{FAR}.lora_A.weight": (8, 64), f"{FAR}.lora_B.weight": (32, 8)}, {}),
    "invocation_string": ({}, {"invocation_string": "x"}),
}  # fmt: skip


@pytest.mark.parametrize("says", EXTRA)
def test_what_runtimes_do_not_load_is_refused_by_name(says: str, recorded: Path, qwen: Path, tmp_path: Path) -> None:
    shapes, config = EXTRA[says]

    def more(tensors: Tensors) -> Tensors:
        return tensors | {name: ("F32", np.ones(shape, "<f4")) for name, shape in shapes.items()}

    source = adapter(recorded, tmp_path / "a", more, lambda c: c.update(config))
    with pytest.raises(BadInput, match=says):
        made(source, tmp_path / "x.gguf", base=qwen)
    assert not (tmp_path / "x.gguf").exists()


@pytest.mark.parametrize("options", [
    {"type": "q4_k_m"}, {"type": "tq1_0"}, {"pure": True}, {"vocab_only": True}, {"lora": "x.gguf"}, {"split_max_tensors": 3},
])  # fmt: skip
def test_options_without_an_effect_are_refused(options: Config, recorded: Path, qwen: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        made(recorded, tmp_path / "x.gguf", base=qwen, **options)


def test_a_base_is_of_no_use_to_a_model(qwen: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--base has no effect"):
        made(qwen, tmp_path / "x.gguf", base=qwen)


def test_what_the_change_of_an_embedding_started_from_is_left_out(recorded: Path, qwen: Path, tmp_path: Path) -> None:
    name = "base_model.model.model.embed_tokens"
    a, b = np.ones((8, 512), "<f4"), np.arange(512, dtype="<f4").reshape(64, 8)
    more = {f"{name}.lora_embedding_A": a, f"{name}.lora_embedding_B": b, f"{name}.base_layer.weight": (a.T @ b.T)}
    source = adapter(recorded, tmp_path / "a", lambda t: t | {n: ("F32", v.copy()) for n, v in more.items()})
    found = made(source, tmp_path / "x.gguf", base=qwen)
    assert np.array_equal(values(found.tensors["token_embd.weight.lora_a"]), a.T)
    assert np.array_equal(values(found.tensors["token_embd.weight.lora_b"]), b)
    assert "token_embd.weight" not in found.tensors


def test_tokens_of_activated_adapters_are_written(recorded: Path, qwen: Path, tmp_path: Path) -> None:
    source = adapter(recorded, tmp_path / "a", config=lambda c: c.update(alora_invocation_tokens=[5, 7]))
    found = made(source, tmp_path / "x.gguf", base=qwen)
    assert found.metadata is not None
    assert list(found.metadata.get("adapter.alora.invocation_tokens")) == [5, 7]
    streamconv.convert(qwen, tmp_path / "base.gguf", type="f32", pre="qwen2", threads=1)
    with pytest.raises(BadInput, match="behind certain tokens"):
        made(tmp_path / "base.gguf", tmp_path / "y.gguf", type="f32", lora=str(tmp_path / "x.gguf"))


# Every family.

#: layers that are no matrices of their own, or no linear layers
_NOT_LINEAR = (
    "embed", "wte", "wpe", "lm_head", "norm", "emb.", "tok_", "output", "shared.weight", "res_proj", "head.out", "kv_b_proj",
    "altup_projections",
)  # fmt: skip
_NOT = ("bitnet", "rugpt3xl", "neobert", "neobert-classify", "jina-bert-v3")
QUICK = (
    "gpt2", "chatglm3", "phi3", "jais", "baichuan", "internlm2", "falcon", "deepseek2", "bloom", "olmoe", "granite-moe-shared",
    "talkie", "gptneox", "muse-glimmer", "qwen35",
)  # fmt: skip
TOYS = toys.stored()


@pytest.mark.parametrize("name", [
    *QUICK, *(pytest.param(n, marks=pytest.mark.slow) for n in TOYS if n not in (*QUICK, *_NOT)),
])  # fmt: skip
def test_the_product_of_the_factors_is_what_becomes_of_the_product(name: str) -> None:
    toy = TOYS[name]
    config, shapes = json.loads(json.dumps(toy["config"])), dict(toys.unpacked(toy["tensors"]))
    side = {file: json.dumps(content).encode() for file, content in toy["side"].items()}
    turned = architecture(config) in ("GPT2LMHeadModel", "JAISLMHeadModel")
    factors, products = dict[str, Rows](), dict[str, Rows]()
    for target, shape in shapes.items():
        if len(shape) == 2 and target.endswith(".weight") and not any(part in target for part in _NOT_LINEAR):
            rng = np.random.default_rng(zlib.crc32(target.encode()))
            n_out, n_in = shape[::-1] if turned else shape
            a, b = (rng.integers(-9, 10, s).astype(np.float32) for s in ((2, n_in), (n_out, 2)))
            stem = f"base_model.model.{target.removesuffix('.weight')}"
            factors |= {f"{stem}.lora_A.weight": Constant(a), f"{stem}.lora_B.weight": Constant(b)}
            products[target] = Constant(np.ascontiguousarray((b @ a).T if turned else b @ a))
    said = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "fan_in_fan_out": turned}
    base = Checkpoint(Path("toy"), {}, config, (), side=side)
    found = adapter_model(Checkpoint(Path("adapter"), factors, said, (), side={}), base)
    rows = {n: products.get(n) or toys.Named(n, tuple(s)) for n, s in sorted(shapes.items())}
    family = FAMILIES[architecture(config)]
    model = replace(base, tensors=rows)
    if family.target:
        model = replace(model, target=Checkpoint(Path("target"), {}, toy.get("target", config), ()))
    whole = build(model, replace(family, tokenizer=None)).tensors
    targets = [n.removesuffix(".lora_a") for n in found.tensors if n.endswith(".lora_a")]
    assert targets
    for target in targets:
        a, b = (values(found.tensors[f"{target}.lora_{letter}"]) for letter in "ab")
        np.testing.assert_allclose(b @ a, values(whole[target]), rtol=1e-5, atol=1e-5, err_msg=target)


# Applied.


@pytest.fixture
def files(recorded: Path, qwen: Path, tmp_path: Path) -> Path:
    """A folder with the adapter without norms as PEFT saves it and as GGUF, its base as GGUF, and both merged."""
    source = adapter(recorded, tmp_path / "a", without_norms)
    streamconv.convert(source, tmp_path / "a.gguf", base=qwen, threads=1)
    streamconv.convert(qwen, tmp_path / "base.gguf", type="f32", pre="qwen2", threads=1)
    (tmp_path / "r.yml").write_text(f"merge_method: passthrough\nmodels: [{{model: {qwen}+{source}}}]\n")
    return tmp_path


def same(found: Checkpoint, want: Checkpoint, tolerance: float = 0.0) -> None:
    assert found.tensors.keys() == want.tensors.keys()
    for name, rows in found.tensors.items():
        difference = np.abs(values(rows) - values(want.tensors[name])).max()
        assert difference <= tolerance, name


def test_however_an_adapter_is_applied_the_model_is_the_same(files: Path, qwen: Path) -> None:
    was = sources.open_checkpoint(files / "base.gguf")
    plain = changed(qwen, files / "f32", lambda t: {n: ("F32", widened(v)) for n, v in t.items()})
    want = made(plain, files / "want.gguf", type="f32", pre="qwen2", lora=str(files / "a"))
    same(made(plain, files / "1.gguf", type="f32", pre="qwen2", lora=str(files / "a.gguf")), want)
    same(made(files / "base.gguf", files / "2.gguf", type="f32", lora=str(files / "a.gguf")), want)
    same(made(files / "base.gguf", files / "3.gguf", type="f32", lora=str(files / "a"), base=qwen), want)
    recipe = files / "merged.yml"
    recipe.write_text(
        f"merge_method: passthrough\nmodels: [{{model: {files / 'base.gguf'}+{files / 'a.gguf'}}}]\ndtype: float32\n"
    )
    same(made(recipe, files / "4.gguf", type="f32"), want)
    name = "blk.1.attn_q.weight"
    assert not np.array_equal(values(want.tensors[name]), values(was.tensors[name]))
    assert np.array_equal(values(want.tensors["blk.1.attn_k.weight"]), values(was.tensors["blk.1.attn_k.weight"]))


def widened(value: tuple[str, np.ndarray]) -> np.ndarray:
    """Bits of bfloat16 as float32."""
    kind, words = value
    return (words.astype("<u4") << 16).view("<f4") if kind == "BF16" else words


def test_adapters_are_applied_one_after_the_other_times_their_scales(files: Path) -> None:
    base = files / "base.gguf"
    one = made(base, files / "1.gguf", type="f32", lora=[f"{files / 'a.gguf'}:0.5", f"{files / 'a.gguf'}:0.5"])
    two = made(base, files / "2.gguf", type="f32", lora=str(files / "a.gguf"))
    same(one, two, 1e-5)
    name = "blk.0.ffn_down.weight"
    was, a, b = (
        sources.open_checkpoint(base),
        *(values(sources.open_checkpoint(files / "a.gguf").tensors[f"{name}.lora_{x}"]) for x in "ab"),
    )
    three = made(base, files / "3.gguf", type="f32", lora=f"{files / 'a.gguf'}:-2")
    np.testing.assert_allclose(values(three.tensors[name]), values(was.tensors[name]) - 4 * b @ a, atol=1e-4)


def test_a_quantized_base_is_changed_too(files: Path) -> None:
    streamconv.convert(files / "base.gguf", files / "q8.gguf", type="q8_0", threads=1)
    found = made(files / "q8.gguf", files / "x.gguf", type="f32", allow_requantize=True, lora=str(files / "a.gguf"))
    want = made(files / "base.gguf", files / "y.gguf", type="f32", lora=str(files / "a.gguf"))
    same(found, want, 0.02)


def test_parts_of_a_split_base_stay_apart(files: Path) -> None:
    streamconv.convert(files / "base.gguf", files / "s.gguf", type="f32", split_max_tensors=8, threads=1)
    first = next(files.glob("s-00001-of-*.gguf"))
    streamconv.convert(first, files / "t.gguf", type="f32", keep_split=True, lora=str(files / "a.gguf"), threads=1)
    assert len(list(files.glob("t-*.gguf"))) == len(list(files.glob("s-*.gguf"))) > 1


def test_stacked_experts_are_changed_one_by_one(tmp_path: Path) -> None:
    from streamconv.merging.gguf_adapter import changed as merged
    from streamconv.metadata import Metadata

    rng = np.random.default_rng(5)
    was, a, b = (rng.standard_normal(s).astype(np.float32) for s in ((3, 6, 4), (3, 2, 4), (3, 6, 2)))
    base = Metadata()
    base.string("general.architecture", "x")
    said = Metadata(dict(base.values))
    said.string("general.type", "adapter")
    said.string("adapter.type", "lora")
    said.f32("adapter.lora.alpha", 6.0)
    name = "blk.0.ffn_up_exps.weight"
    factors = {f"{name}.lora_a": Constant(a), f"{name}.lora_b": Constant(b)}
    file = Checkpoint(tmp_path / "a.gguf", factors, {}, (), metadata=said)
    found = merged({name: Constant(was)}, "base", base, file, 0.5)[name]
    np.testing.assert_allclose(values(found), was + 1.5 * b @ a, atol=1e-5)


@pytest.mark.parametrize(("text", "want"), [
    ("a.gguf", ("a.gguf", 1.0)), ("a.gguf:0.5", ("a.gguf", 0.5)), ("org/x:-2e1", ("org/x", -20.0)), ("c:/x/y", ("c:/x/y", 1.0)),
])  # fmt: skip
def test_a_scale_may_follow_the_name(text: str, want: tuple[str, float]) -> None:
    assert parse(text) == want


@pytest.mark.parametrize("text", ["a.gguf:much", "a.gguf:nan", "a.gguf:inf", ":0.5", "a.gguf:"])
def test_a_scale_that_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a number"):
        parse(text)


def test_what_does_not_belong_together_is_refused(files: Path, data: Path, qwen: Path) -> None:
    other = files / "other.gguf"
    streamconv.convert(data / "checkpoints" / "mistral-spm" / "hf", other, type="f32", threads=1)
    with pytest.raises(BadInput, match="is an adapter for 'qwen2'"):
        made(other, files / "x.gguf", type="f32", lora=str(files / "a.gguf"))
    with pytest.raises(BadInput, match="is not a LoRA adapter"):
        made(files / "base.gguf", files / "x.gguf", type="f32", lora=str(files / "base.gguf"))
    with pytest.raises(UsageError, match="changes GGUF files only"):
        streamconv.convert(qwen, files / "folder", lora=str(files / "a.gguf"))
    with pytest.raises(UsageError, match="--vocab-only"):
        made(qwen, files / "x.gguf", vocab_only=True, pre="qwen2", lora=str(files / "a.gguf"))


def test_an_adapter_of_peft_is_applied_to_a_folder(files: Path, qwen: Path) -> None:
    streamconv.convert(qwen, files / "folder", lora=str(files / "a"), threads=1)
    streamconv.convert(files / "r.yml", files / "recipe", threads=1)
    found, want = (sources.open_checkpoint(files / name).tensors for name in ("folder", "recipe"))
    digests = [
        {n: hashlib.sha256(values(rows).tobytes()).hexdigest() for n, rows in each.items()} for each in (found, want)
    ]
    assert digests[0] == digests[1]


def test_adapters_of_mlx_have_their_scale(qwen: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    a, b = (rng.standard_normal(shape).astype("<f4") for shape in ((64, 4), (4, 160)))
    folder, name = tmp_path / "mlx", "model.layers.1.mlp.up_proj"
    folder.mkdir()
    write_safetensors(folder / "adapters.safetensors", {f"{name}.lora_a": ("F32", a), f"{name}.lora_b": ("F32", b)})
    said = {"fine_tune_type": "lora", "lora_parameters": {"rank": 4, "scale": 20.0}, "model": str(qwen)}
    (folder / "adapter_config.json").write_text(json.dumps(said))
    found = made(folder, tmp_path / "x.gguf")
    assert found.metadata is not None
    assert found.metadata.get("adapter.lora.alpha") == 80.0
    stem = "blk.1.ffn_up.weight"
    assert found.tensors.keys() == {f"{stem}.lora_a", f"{stem}.lora_b"}
    assert np.array_equal(values(found.tensors[f"{stem}.lora_a"]), a.T)
    assert np.array_equal(values(found.tensors[f"{stem}.lora_b"]), b.T)


def test_experts_that_mlx_stacked_stay_stacked() -> None:
    a, b = (np.random.default_rng(4).standard_normal(shape).astype("<f4") for shape in ((8, 2, 64), (8, 32, 2)))
    name = "model.layers.0.mlp.switch_mlp.up_proj"
    config, tensors = as_peft(
        "mlx", {"fine_tune_type": "lora", "lora_parameters": {"rank": 2, "scale": 3.0}},
        {f"{name}.lora_a": Constant(a), f"{name}.lora_b": Constant(b)},
    )  # fmt: skip
    base = Checkpoint(Path("toy"), {}, json.loads(json.dumps(TOYS["olmoe"]["config"])), (), side={})
    found = adapter_model(Checkpoint(Path("mlx"), tensors, config, (), side={}), base)
    stem = "blk.0.ffn_up_exps.weight"
    assert np.array_equal(values(found.tensors[f"{stem}.lora_a"]), a)
    assert np.array_equal(values(found.tensors[f"{stem}.lora_b"]), b)
