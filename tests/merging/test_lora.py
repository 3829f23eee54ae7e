"""Adapters applied while rows stream by: recorded results of PEFT, and loops that say what each setting means."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "sources"))

import torch_files
from merge_cases import floats, values_of, write_model
from small_models import read_safetensors, write_safetensors

from streamconv import sources
from streamconv.errors import BadInput, InputMissing
from streamconv.merging import lora
from streamconv.sources.checkpoint import Checkpoint

DATA = Path(__file__).resolve().parents[1] / "data" / "merging" / "adapters.npz"
P = "base_model.model."
Q, EMBEDDING, HEAD = "model.layers.0.self_attn.q_proj", "model.embed_tokens", "lm_head"
N_OUT, N_IN, RANK, VOCABULARY = 12, 20, 3, 30
LLAMA: dict[str, Any] = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": VOCABULARY}


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype("<f4")


def base_model(folder: Path, config: Mapping[str, Any] = LLAMA, dtype: str = "F32") -> dict[str, np.ndarray]:
    tensors = {
        f"{EMBEDDING}.weight": numbers(VOCABULARY, N_IN),
        f"{Q}.weight": numbers(N_OUT, N_IN),
        f"{Q}.bias": numbers(N_OUT),
        f"{HEAD}.weight": numbers(VOCABULARY, N_IN, seed=1),
    }
    if dtype == "BF16":
        tensors = {n: ((t.view("<u4") + 0x8000) & 0xFFFF0000).view("<f4") for n, t in tensors.items()}
        write_model(folder, {n: (t.view("<u4") >> 16).astype("<u2") for n, t in tensors.items()}, config)
    else:
        write_model(folder, tensors, config)
    return tensors


def adapter(folder: Path, tensors: Mapping[str, np.ndarray], **config: Any) -> Path:
    folder.mkdir(exist_ok=True)
    write_safetensors(folder / "adapter_model.safetensors", {n: ("F32", t) for n, t in tensors.items()})
    settings = {"peft_type": "LORA", "r": RANK, "lora_alpha": 6, **config}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


def factors(module: str = Q, n_out: int = N_OUT, n_in: int = N_IN, rank: int = RANK) -> dict[str, np.ndarray]:
    return {
        f"{P}{module}.lora_A.weight": numbers(rank, n_in, seed=2),
        f"{P}{module}.lora_B.weight": numbers(n_out, rank, seed=3),
    }


def product(module: str = Q, **shape: int) -> np.ndarray:
    a, b = factors(module, **shape).values()
    return b.astype(np.float64) @ a


def applied(folder: Path) -> Checkpoint:
    return lora.with_adapter(sources.open_checkpoint(folder / "base"), lora.open_adapter(folder / "adapter"))


def close(rows: Any, want: np.ndarray) -> None:
    np.testing.assert_allclose(values_of(rows), want, rtol=0, atol=2e-6 * np.abs(want).max())


@pytest.mark.parametrize("name", ["lora_plain", "lora_dora", "lora_embed"])
def test_recorded_adapters_give_what_peft_merged(name: str, tmp_path: Path) -> None:
    with np.load(DATA) as file:
        parts = {k.split(":")[1]: file[k] for k in file.files if k.split(":")[0] == name}
        base = {k.split(":")[1]: file[k] for k in file.files if k.startswith("base:")}
        want = {k.split(":")[1]: file[k] for k in file.files if k.startswith(f"{name} merged:")}
    config = json.loads(parts.pop("adapter_config.json").tobytes())
    write_model(tmp_path / "base", base, LLAMA)
    adapter(tmp_path / "adapter", parts, **config)
    found = applied(tmp_path)
    for tensor, words in want.items():
        like_recorded(values_of(found.tensors[tensor]), words)


def like_recorded(rows: np.ndarray, words: np.ndarray) -> None:
    """float32 to a few units; recorded bfloat16 but for a rounding or two."""
    want = floats(words)
    if words.dtype == np.uint16:
        rows = ((rows.view("<u4") + 0x7FFF + ((rows.view("<u4") >> 16) & 1)) & 0xFFFF0000).view("<f4")
        assert (rows != want).mean() <= 0.005
    np.testing.assert_allclose(
        rows, want, rtol=2**-7 if words.dtype == np.uint16 else 0, atol=2e-6 * np.abs(want).max()
    )


@pytest.mark.parametrize(
    "case", ["lora_passthrough", "lora_rs_linear", "lora_embed_passthrough", "lora_dora_passthrough"]
)
def test_whole_merges_with_adapters_are_those_of_mergekit(case: str, reference: Path) -> None:
    from streamconv import merging

    root = reference / "golden" / "merge"
    found = merging.open_recipe(
        root / case / "config.yml",
        lambda text: sources.open_checkpoint(root / text),
        open_adapter=lambda text: lora.open_adapter(root / text),
    )
    for name, (dtype, words) in read_safetensors(root / case / "expected" / "model.safetensors").items():
        rows = values_of(found.tensors[name])
        assert found.tensors[name].dtype == dtype
        like_recorded(rows, words)
    assert {"tokenizer.json", "generation_config.json", "config.json"} <= set(found.side_names())
    if case == "lora_rs_linear":  # it ships a tokenizer of its own, of which the first model with one decides
        own = (root / "inputs" / "lora_rs" / "tokenizer.json").read_bytes()
        assert found.side_bytes("tokenizer.json") == own


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({}, 6 / 3),
        ({"use_rslora": True}, 6 / np.sqrt(3)),
        ({"alpha_pattern": {"k_proj": 1, "self_attn.q_proj": 9, "q_proj": 5}}, 9 / 3),
        ({"r": 64, "rank_pattern": {r"layers\.\d+.*q_proj": 3}}, 6 / 3),
        ({"alpha_pattern": {"proj": 9}}, 6 / 3),  # a part of a name is none
    ],
)
def test_the_scale_follows_rank_alpha_and_their_patterns(config: dict[str, Any], scale: float, tmp_path: Path) -> None:
    base = base_model(tmp_path / "base")
    adapter(tmp_path / "adapter", factors(), **config)
    close(applied(tmp_path).tensors[f"{Q}.weight"], base[f"{Q}.weight"] + scale * product())


def test_adapters_saved_by_torch_give_the_same(tmp_path: Path) -> None:
    base_model(tmp_path / "base")
    folder = adapter(tmp_path / "adapter", factors())
    want = values_of(applied(tmp_path).tensors[f"{Q}.weight"])
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.bin").write_bytes(torch_files.checkpoint({n: ("F32", t) for n, t in factors().items()}))
    np.testing.assert_array_equal(values_of(applied(tmp_path).tensors[f"{Q}.weight"]), want)


def test_a_sixteen_bit_base_is_rounded_once(tmp_path: Path) -> None:
    base = base_model(tmp_path / "base", dtype="BF16")
    adapter(tmp_path / "adapter", factors())
    rows = applied(tmp_path).tensors[f"{Q}.weight"]
    want = (base[f"{Q}.weight"] + 2 * product()).astype("<f4")
    rounded = ((want.view("<u4") + 0x7FFF + ((want.view("<u4") >> 16) & 1)) & 0xFFFF0000).view("<f4")
    assert rows.dtype == "BF16"
    np.testing.assert_array_equal(values_of(rows), rounded)


def test_dora_stretches_rows_of_outputs(tmp_path: Path) -> None:
    base = base_model(tmp_path / "base")
    lengths = np.abs(numbers(N_OUT, seed=4)) + 1
    adapter(tmp_path / "adapter", {**factors(), f"{P}{Q}.lora_magnitude_vector": lengths}, use_dora=True)
    moved = base[f"{Q}.weight"] + 2 * product()
    close(applied(tmp_path).tensors[f"{Q}.weight"], moved * (lengths / np.linalg.norm(moved, axis=1))[:, None])


@pytest.mark.parametrize("n_out", [N_OUT, N_IN], ids=["oblong", "square"])
@pytest.mark.parametrize("dora", [False, True])
def test_layers_stored_the_other_way_round(n_out: int, dora: bool, tmp_path: Path) -> None:
    name = "transformer.h.0.attn.c_attn"
    weight = numbers(N_IN, n_out)
    write_model(tmp_path / "base", {f"{name}.weight": weight}, {"model_type": "gpt2"})
    tensors, lengths = factors(name, n_out=n_out), np.abs(numbers(n_out, seed=4)) + 1
    if dora:
        tensors[f"{P}{name}.lora_magnitude_vector"] = lengths
    adapter(tmp_path / "adapter", tensors, fan_in_fan_out=True, use_dora=dora)
    want = weight + 2 * product(name, n_out=n_out).T
    if dora:
        want *= lengths / np.linalg.norm(want, axis=0)
    rows = applied(tmp_path).tensors[f"{name}.weight"]
    close(rows, want)
    np.testing.assert_array_equal(values_of(rows, 3), values_of(rows))


def test_embeddings_are_changed_by_rows_and_start_from_what_was_saved(tmp_path: Path) -> None:
    base_model(tmp_path / "base")
    start, a, b = numbers(VOCABULARY, N_IN, seed=5), numbers(RANK, VOCABULARY, seed=6), numbers(N_IN, RANK, seed=7)
    tensors = {
        f"{P}{EMBEDDING}.base_layer.weight": start,
        f"{P}{EMBEDDING}.lora_embedding_A": a,
        f"{P}{EMBEDDING}.lora_embedding_B": b,
    }
    adapter(tmp_path / "adapter", tensors)
    close(applied(tmp_path).tensors[f"{EMBEDDING}.weight"], start + 2 * (b.astype(np.float64) @ a).T)


def test_saved_modules_replace_those_of_the_base(tmp_path: Path) -> None:
    base = base_model(tmp_path / "base")
    saved = numbers(VOCABULARY, N_IN, seed=8)
    adapter(
        tmp_path / "adapter",
        {f"{P}{HEAD}.modules_to_save.default.weight": saved, f"{P}{Q}.base_layer.bias": numbers(N_OUT, seed=9)},
        modules_to_save=["lm_head"], bias="lora_only",
    )  # fmt: skip
    found = applied(tmp_path)
    np.testing.assert_array_equal(values_of(found.tensors[f"{HEAD}.weight"]), saved)
    np.testing.assert_array_equal(values_of(found.tensors[f"{Q}.bias"]), numbers(N_OUT, seed=9))
    np.testing.assert_array_equal(values_of(found.tensors[f"{Q}.weight"]), base[f"{Q}.weight"])


def test_a_resized_vocabulary_changes_the_configuration(tmp_path: Path) -> None:
    base_model(tmp_path / "base")
    grown = numbers(VOCABULARY + 2, N_IN, seed=8)
    tensors = {f"{P}{EMBEDDING}.weight": grown, f"{P}{HEAD}.weight": grown}
    adapter(tmp_path / "adapter", tensors, modules_to_save=["embed_tokens", "lm_head"])
    found = applied(tmp_path)
    assert found.config["vocab_size"] == VOCABULARY + 2
    assert found.tensors[f"{HEAD}.weight"].shape == grown.shape
    adapter(tmp_path / "adapter", {f"{P}{EMBEDDING}.weight": grown}, modules_to_save=["embed_tokens"])
    with pytest.raises(BadInput, match=r"'lm_head.weight' has 30 rows and 'model.embed_tokens.weight' 32"):
        applied(tmp_path)


@pytest.mark.parametrize(
    "name", ["model.embed_tokens", "backbone.embeddings", "shared", "gpt_neox.embed_in", "transformer.wte"]
)
def test_the_embedding_is_known_by_every_name_that_families_give_it(name: str, tmp_path: Path) -> None:
    write_model(
        tmp_path / "base", {f"{name}.weight": numbers(VOCABULARY, N_IN), f"{Q}.weight": numbers(N_OUT, N_IN)}, LLAMA
    )
    grown = numbers(VOCABULARY + 2, N_IN, seed=8)
    adapter(tmp_path / "adapter", {f"{P}{name}.weight": grown}, modules_to_save=[name.rpartition(".")[2]])
    assert applied(tmp_path).config["vocab_size"] == VOCABULARY + 2


def test_a_head_of_its_own_unties_the_model(tmp_path: Path) -> None:
    base = {f"{EMBEDDING}.weight": numbers(VOCABULARY, N_IN), f"{Q}.weight": numbers(N_OUT, N_IN)}
    write_model(tmp_path / "base", base, {**LLAMA, "tie_word_embeddings": True})
    adapter(tmp_path / "adapter", factors(HEAD, n_out=VOCABULARY))
    found = applied(tmp_path)
    assert found.config["tie_word_embeddings"] is False
    embedding = base[f"{EMBEDDING}.weight"]
    close(found.tensors[f"{HEAD}.weight"], embedding + 2 * product(HEAD, n_out=VOCABULARY))
    np.testing.assert_array_equal(values_of(found.tensors[f"{EMBEDDING}.weight"]), embedding)


def test_the_adapters_tokenizer_is_taken_when_it_ships_one_and_the_bases_else(tmp_path: Path) -> None:
    base_model(tmp_path / "base")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        (tmp_path / "base" / name).write_text("{}")
    folder = adapter(tmp_path / "adapter", factors())
    found = applied(tmp_path)
    assert {"tokenizer.json", "chat_template.jinja", "generation_config.json"} <= set(found.side_names())
    assert found.side_bytes("tokenizer.json") == b"{}"
    (folder / "tokenizer.json").write_text('{"model": {"vocab": {"a": 0}}}')
    (folder / "tokenizer_config.json").write_text('{"chat_template": "mine"}')
    found = applied(tmp_path)
    assert found.text("tokenizer.json") == '{"model": {"vocab": {"a": 0}}}'
    assert found.side_file("chat_template.jinja") is None
    assert found.side_bytes("generation_config.json") == b"{}"


@pytest.mark.parametrize(
    "said", [{"tie_word_embeddings": True}, {"model_type": "gemma2"}, {"text_config": {"model_type": "cohere"}}]
)
def test_a_head_that_was_not_trained_stays_where_the_model_ties_by_its_key_or_its_family(
    said: dict[str, Any], tmp_path: Path
) -> None:
    embedding = numbers(VOCABULARY, N_IN)
    write_model(
        tmp_path / "base", {f"{EMBEDDING}.weight": embedding, f"{Q}.weight": numbers(N_OUT, N_IN)}, {**LLAMA, **said}
    )
    trained = numbers(VOCABULARY, N_IN, seed=8)
    adapter(tmp_path / "adapter", {f"{P}{EMBEDDING}.weight": trained}, modules_to_save=["embed_tokens"])
    found = applied(tmp_path)
    np.testing.assert_array_equal(values_of(found.tensors[f"{EMBEDDING}.weight"]), trained)
    np.testing.assert_array_equal(values_of(found.tensors[f"{HEAD}.weight"]), embedding)
    assert found.config["tie_word_embeddings"] is False


@pytest.mark.parametrize("name", ["sentencepiece.bpe.model", "qwen.tiktoken", "tekken.json", "vocab.txt"])
def test_any_file_of_a_vocabulary_makes_a_tokenizer_of_the_adapters_own(name: str, tmp_path: Path) -> None:
    base_model(tmp_path / "base")
    for each in (name, "tokenizer_config.json"):
        (tmp_path / "base" / each).write_text("{}")
        (tmp_path / "base" / "tokenizer.model.v3").write_text("old")
    folder = adapter(tmp_path / "adapter", factors())
    (folder / name).write_text("its own")
    (folder / "tokenizer_config.json").write_text('{"a": 1}')
    found = applied(tmp_path)
    assert (found.text(name), found.text("tokenizer_config.json")) == ("its own", '{"a": 1}')
    assert found.side_file("tokenizer.model.v3") is None
    assert not found.warnings


@pytest.mark.parametrize("kind", ["IA3", "LOHA", "LOKR", "VERA", "PROMPT_TUNING"])
def test_other_adapters_are_refused(kind: str, tmp_path: Path) -> None:
    base_model(tmp_path / "base")
    adapter(tmp_path / "adapter", factors(), peft_type=kind)
    with pytest.raises(BadInput, match=f"is a {kind} adapter; only LORA"):
        applied(tmp_path)


@pytest.mark.parametrize(
    ("tensors", "config", "message"),
    [
        (factors("model.layers.9.self_attn.q_proj"), {}, "which .* does not have"),
        (factors(n_in=N_IN + 1), {}, "do not fit"),
        ({f"{P}{Q}.lora_A.weight": numbers(RANK, N_IN)}, {}, "has no lora_B"),
        (factors(), {"use_dora": True}, "no lora_magnitude_vector"),
        (factors(), {"r": 4}, "has rank 3, adapter_config.json says 4"),
        (factors(), {"layer_replication": [[0, 1]]}, "repeats layers"),
    ],
)
def test_adapters_that_do_not_fit_are_refused(tensors: Any, config: Any, message: str, tmp_path: Path) -> None:
    base_model(tmp_path / "base")
    adapter(tmp_path / "adapter", tensors, **config)
    with pytest.raises(BadInput, match=message):
        applied(tmp_path)


def test_a_folder_that_is_no_adapter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    with pytest.raises(InputMissing, match=r"has no adapter_config\.json"):
        lora.open_adapter(tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    with pytest.raises(InputMissing, match=r"neither adapter_model\.safetensors nor adapter_model\.bin"):
        lora.open_adapter(tmp_path / "adapter")
