"""Makes every message of docs/troubleshooting.md: what somebody has, and the command that tells what is wrong with it."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFWriter
from small_models import DATA, Tensors, read_safetensors, write_safetensors

#: in the current folder ``model`` is a checkpoint: makes something of it, gives the words of a command
Trouble = Callable[[Path], list[str]]
TROUBLES: dict[str, tuple[str, Trouble]] = {}
PLAN = ["plan", "model", "out.gguf", "--type", "Q4_0"]
_CHECKPOINTS, _TINY = DATA / "checkpoints", DATA.parents[1] / "examples" / "tiny-gemma3"


def trouble(checkpoint: str = "mistral-spm") -> Callable[[Trouble], Trouble]:
    """Lists a function under its name; ``checkpoint``: what ``model`` is a copy of, ``tiny`` the bundled model, "" nothing."""

    def keep(make: Trouble) -> Trouble:
        TROUBLES[make.__name__] = checkpoint, make
        return make

    return keep


def command(name: str) -> list[str]:
    """Makes what is wrong in the current folder; the command that says so."""
    checkpoint, make = TROUBLES[name]
    model = Path("model")
    if checkpoint:
        shutil.copytree(_TINY if checkpoint == "tiny" else _CHECKPOINTS / checkpoint / "hf", model)
        for path in model.iterdir():
            path.chmod(0o644)
    else:
        model.mkdir()
    return make(model)


def configure(model: Path, **keys: Any) -> None:
    """Sets keys of config.json; ``...`` takes one away."""
    values = {**json.loads((model / "config.json").read_text()), **keys}
    (model / "config.json").write_text(json.dumps({k: v for k, v in values.items() if v is not ...}))


def rewrite(model: Path, change: Callable[[Tensors], Tensors]) -> None:
    """Changes the tensors."""
    write_safetensors(model / "model.safetensors", change(read_safetensors(model / "model.safetensors")))


@trouble()
def pointer(model: Path) -> list[str]:
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'7' * 64}\nsize 4976698672\n"
    (model / "model.safetensors").write_text(text)
    return PLAN


@trouble()
def page(model: Path) -> list[str]:
    (model / "tokenizer.model").write_text("<!DOCTYPE html>\n<html><title>Sign in</title></html>")
    return PLAN


@trouble()
def dead_link(model: Path) -> list[str]:
    (model / "model.safetensors").unlink()
    (model / "model.safetensors").symlink_to("../../blobs/1f3c")
    return PLAN


@trouble()
def shard_missing(model: Path) -> list[str]:
    (model / "model.safetensors").rename(model / "model-00001-of-00002.safetensors")
    names = read_safetensors(model / "model-00001-of-00002.safetensors")
    where = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(names)}
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return PLAN


@trouble("")
def own_layout(model: Path) -> list[str]:
    (model / "consolidated.safetensors").write_bytes(b"")
    (model / "params.json").write_text("{}")
    return PLAN


@trouble()
def rank_files(model: Path) -> list[str]:
    (model / "model.safetensors").rename(model / "model_world_size_4_rank_0.pt")
    return PLAN


@trouble()
def empty_tensors(model: Path) -> list[str]:
    rewrite(model, lambda tensors: {name: (kind, words.reshape(-1)[:0]) for name, (kind, words) in tensors.items()})
    return PLAN


@trouble()
def two_sets(model: Path) -> list[str]:
    (model / "pytorch_model.bin").write_bytes(b"older")
    return PLAN


@trouble()
def unfinished_download(model: Path) -> list[str]:
    (model / "model.safetensors").rename(model / "model.safetensors.incomplete")
    return PLAN


@trouble()
def adapter_beside(model: Path) -> list[str]:
    (model / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    (model / "adapter_model.safetensors").write_bytes(b"")
    return PLAN


@trouble()
def unmerged(model: Path) -> list[str]:
    extra = {f"model.layers.0.self_attn.q_proj.lora_{side}.weight": ("F32", np.ones((4, 64), "<f4")) for side in "AB"}
    rewrite(model, lambda tensors: tensors | extra)
    return PLAN


@trouble("")
def adapter_alone(model: Path) -> list[str]:
    (model / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    write_safetensors(model / "adapter_model.safetensors", {"x.lora_A.weight": ("F32", np.ones((4, 64), "<f4"))})
    return PLAN


@trouble("")
def folder_of_splits(model: Path) -> list[str]:
    for part in (1, 2):
        (model / f"big-0000{part}-of-00002.gguf").write_bytes(b"GGUF")
    return PLAN


@trouble()
def no_architecture(model: Path) -> list[str]:
    configure(model, architectures=..., model_type=...)
    return PLAN


@trouble()
def other_family(model: Path) -> list[str]:
    configure(model, architectures=["HyperNovaForCausalLM"])
    return PLAN


@trouble()
def other_shape(model: Path) -> list[str]:
    configure(model, intermediate_size=96)
    return PLAN


@trouble()
def vocabulary_size(model: Path) -> list[str]:
    configure(model, vocab_size=520)
    return PLAN


@trouble()
def text_for_flag(model: Path) -> list[str]:
    configure(model, tie_word_embeddings="false")
    return PLAN


@trouble()
def unknown_method(model: Path) -> list[str]:
    configure(model, quantization_config={"quant_method": "squeezer", "bits": 3})
    codes = {"model.layers.0.mlp.up_proj.qcodes": ("I32", np.ones((2, 2), "<i4"))}
    rewrite(model, lambda tensors: {n: t for n, t in tensors.items() if "0.mlp.up_proj" not in n} | codes)
    return PLAN


@trouble()
def other_activation(model: Path) -> list[str]:
    configure(model, hidden_act="relu")
    return PLAN


@trouble()
def no_tokenizer(model: Path) -> list[str]:
    for path in model.glob("tokenizer*"):
        path.unlink()
    return PLAN


@trouble("llama3-bpe")
def other_splitting(model: Path) -> list[str]:
    return PLAN


@trouble()
def two_templates(model: Path) -> list[str]:
    config = json.loads((model / "tokenizer_config.json").read_text())
    (model / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": "{{ messages[0].content }}"}))
    (model / "chat_template.jinja").write_text("{{ messages[-1].content }}")
    return PLAN


def _matrix(entries: dict[str, int]) -> list[str]:
    """An importance matrix with ``entries``, tensor -> columns."""
    raw = [
        struct.pack("<i", len(n)) + n.encode() + struct.pack("<ii", 1, cols) + np.ones(cols, "<f4").tobytes()
        for n, cols in entries.items()
    ]
    Path("imatrix.dat").write_bytes(struct.pack("<i", len(entries)) + b"".join(raw))
    return [*PLAN, "--imatrix", "imatrix.dat"]


@trouble()
def foreign_matrix(model: Path) -> list[str]:
    return _matrix({"blk.0.attn_qkv.weight": 64})


@trouble()
def partial_matrix(model: Path) -> list[str]:
    return _matrix({"blk.0.attn_q.weight": 64, "blk.0.attn_k.weight": 64})


@trouble("tiny")
def no_matrix(model: Path) -> list[str]:
    return ["plan", "model", "out.gguf", "--type", "IQ2_XXS"]


def _small_gguf(path: str, type: str) -> None:
    from streamconv import convert

    convert("model", path, type=type)


@trouble()
def quantized_before(model: Path) -> list[str]:
    _small_gguf("in.gguf", "Q8_0")
    return ["plan", "in.gguf", "out.gguf", "--type", "Q4_0"]


@trouble()
def override_of_another_type(model: Path) -> list[str]:
    _small_gguf("in.gguf", "F16")
    return ["plan", "in.gguf", "out.gguf", "--type", "F16", "--override-kv", "llama.block_count=str:two"]


@trouble()
def window(model: Path) -> list[str]:
    return PLAN


@trouble()
def dynamic_positions(model: Path) -> list[str]:
    configure(model, rope_scaling={"type": "dynamic", "factor": 2.0})
    return PLAN


@trouble()
def no_head(model: Path) -> list[str]:
    rewrite(model, lambda tensors: {name: t for name, t in tensors.items() if name != "lm_head.weight"})
    return PLAN


@trouble()
def bias_nowhere(model: Path) -> list[str]:
    configure(model, attention_bias=True)
    return PLAN


@trouble()
def two_kinds_of_model(model: Path) -> list[str]:
    configure(model, model_type="qwen2")
    return PLAN


@trouble()
def scaling_said_twice(model: Path) -> list[str]:
    configure(model, rope_scaling={"type": "linear", "factor": 2.0}, rope_parameters={"type": "linear", "factor": 4.0})
    return PLAN


@trouble()
def unknown_key(model: Path) -> list[str]:
    configure(model, logits_scaling=8.0)
    return PLAN


@trouble()
def missing_tensor(model: Path) -> list[str]:
    rewrite(model, lambda tensors: {n: t for n, t in tensors.items() if n != "model.layers.1.mlp.up_proj.weight"})
    return PLAN


@trouble("qwen3-tied")
def two_ends(model: Path) -> list[str]:
    (model / "generation_config.json").write_text('{"eos_token_id": [500]}')
    return [*PLAN, "--pre", "qwen2"]


@trouble("")
def marker_is_no_token(model: Path) -> list[str]:
    writer = GGUFWriter("in.gguf", "x-test")
    writer.add_tokenizer_model("llama")
    writer.add_token_list(["<unk>", "<s>", "</s>", "<start_of_turn>", "a"])
    writer.add_token_scores([0.0] * 5)
    writer.add_token_types([2, 3, 3, 1, 1])
    writer.add_chat_template("{% for m in messages %}<start_of_turn>{{ m.content }}{% endfor %}")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return ["check", "in.gguf"]


def _recipe(text: str) -> list[str]:
    Path("recipe.yml").write_text(text)
    return ["plan", "recipe.yml", "out.gguf", "--type", "F16"]


@trouble()
def vocabularies_differ(model: Path) -> list[str]:
    shutil.copytree(model, "other")

    def shorter(tensors: Tensors) -> Tensors:
        tables = ("model.embed_tokens.weight", "lm_head.weight")
        return {n: (kind, words[:500] if n in tables else words) for n, (kind, words) in tensors.items()}

    rewrite(Path("other"), shorter)
    configure(Path("other"), vocab_size=500)
    return _recipe("merge_method: linear\nparameters: {weight: 0.5}\nmodels: [{model: model}, {model: other}]\n")


@trouble()
def merge_without_tokenizer(model: Path) -> list[str]:
    no_tokenizer(model)
    return _recipe("merge_method: passthrough\nmodels: [{model: model}]\n")
