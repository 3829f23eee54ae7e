"""Small jobs of every kind for ``test_fingerprint.py``: what they are made of, and how each of its facts may change."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from quantized_files import bf16
from quantized_files import llama as nf4_llama
from small_models import Tensors, read_safetensors, write_safetensors

from streamconv import conversion
from streamconv.conversion import Options, Prepared
from streamconv.merging.extraction import Extraction, ModuleChoice

DATA = Path(__file__).resolve().parent / "data"
PLAIN = DATA / "checkpoints" / "mistral-spm" / "hf"
QUERY = "model.layers.0.self_attn.q_proj"
ENCODINGS = (
    "bnb4_nf4_dq.case001", "bnb8_blockwise.case000", "bnb8_llm_int8.case001", "awq_gemm.case02", "gptq.case04",
    "compressed_tensors.case02", "compressed_tensors.case30", "compressed_tensors.case31", "fp8.case04", "hqq.case02",
    "hqq.case03", "mxfp4.model",
)  # fmt: skip


@dataclass(frozen=True)
class Job:
    """Something that can be planned.

    Attributes
    ----------
    plan : plans it as its files are now, given the options
    texts : files that are changed: JSON, YAML, or other text, of which only an end is added
    """

    plan: Callable[[Options], Prepared]
    texts: tuple[Path, ...]
    options: Options = field(default_factory=Options)


def bytes_of(prepared: Prepared, unsigned: bool = True) -> list[bytes]:
    """The bytes of all outputs; ``unsigned``: without the fingerprint that stands in them."""
    plan = prepared.plan
    found = [bytearray(f.size) for f in plan.files]
    for data, file in zip(found, plan.files, strict=True):
        header = file.header.replace(plan.fingerprint.hex().encode(), b"") if unsigned else file.header
        data[: len(file.header)] = header.ljust(len(file.header))
    for item, places in plan.items:
        outs = [np.empty((item.n_rows, n), np.uint8) for n in item.row_bytes]
        item.fill(0, item.n_rows, outs, np.empty(max(1 << 16, 2 * item.n_cols), np.float32))
        for place in places:
            data = outs[place.part].tobytes()
            found[place.file][place.offset : place.offset + len(data)] = data
    return [bytes(data) for data in found]


# How facts change.

_OTHER = {
    "gptq": "gptq_v2", "gptq_v2": "gptq", "gemm": "gemv", "bfloat16": "float16", "float16": "bfloat16", "float32": "float16",
    "int": "float", "group": "channel", "linear": "ties", "mistral": "llama", "silu": "gelu",
}  # fmt: skip


def changes(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """``value`` with one thing in it changed, for every such thing: a number, a word, a key that is gone or new."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield f"{where}/{key} is gone", {k: v for k, v in value.items() if k != key}
            for what, changed in changes(inner, f"{where}/{key}"):
                yield what, {**value, key: changed}
    elif isinstance(value, list):
        for n, inner in enumerate(value[:4]):
            for what, changed in changes(inner, f"{where}[{n}]"):
                yield what, [*value[:n], changed, *value[n + 1 :]]
        yield f"{where} is shorter", value[:-1]
        yield f"{where} is reversed", value[::-1]
    else:
        for other in _others(value):
            if other != value or type(other) is not type(value):
                yield f"{where}: {value!r} -> {other!r}", other


def _others(value: Any) -> list[Any]:
    if value is None:
        return [1, True, {"rope_type": "linear", "factor": 2.0}]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, (int, float)):
        return [value + 1, value * 2, value / 2 if isinstance(value, float) else value // 2, 0]
    return [_OTHER.get(value, value + "x"), ""]


def text_changes(path: Path) -> Iterator[tuple[str, bytes]]:
    """The bytes of a file with one thing in it changed."""
    before = path.read_bytes()
    if path.suffix == ".json":
        for what, changed in changes(json.loads(before)):
            yield f"{path.name}{what}", json.dumps(changed).encode()
        yield f"{path.name} in another layout", json.dumps(json.loads(before), indent=3).encode()
    elif path.suffix in (".yml", ".yaml"):
        for what, changed in changes(yaml.safe_load(before)):
            yield f"{path.name}{what}", yaml.safe_dump(changed, sort_keys=False).encode()
        yield f"{path.name} with a comment", before + b"\n# a comment\n"
    else:
        yield f"{path.name} with another line", before + b"\none more\n"


# Jobs.


def convert(source: Path, output: Path, texts: tuple[Path, ...], **options: Any) -> Job:
    """A conversion of ``source``."""
    return Job(lambda o: conversion.prepare(source, output, o), texts, Options(**options))


def _model(folder: Path, tensors: Callable[[Tensors], None] = lambda t: None, **config: Any) -> Path:
    """A copy of the plain model with other tensors and more in its configuration."""
    shutil.copytree(PLAIN, folder)
    for path in folder.iterdir():
        path.chmod(0o644)
    found = read_safetensors(folder / "model.safetensors")
    tensors(found)
    write_safetensors(folder / "model.safetensors", found)
    said = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**said, **config}))
    (folder / "README.md").write_text("---\nlicense: mit\ntags: [a, b]\n---\nA model.\n")
    return folder


def _texts(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(p for p in folder.iterdir() if p.suffix in (".json", ".md", ".jinja", ".txt")))


def _noisy(seed: int) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        rng = np.random.default_rng(seed)
        for name, (dtype, words) in tensors.items():
            values = (words.astype(np.uint32) << 16).view(np.float32)
            tensors[name] = dtype, bf16(values + 0.02 * rng.standard_normal(values.shape).astype(np.float32))

    return change


def _packed(tensors: Tensors, transposed: bool) -> None:
    """The query of the first layer with four bits and groups of 32: random codes, which mean the same as any."""
    del tensors[f"{QUERY}.weight"]
    rng = np.random.default_rng(1)
    words = rng.integers(-(2**31), 2**31, (64, 8) if transposed else (8, 64)).astype(np.int32)
    tensors[f"{QUERY}.qweight"] = "I32", words
    tensors[f"{QUERY}.qzeros"] = "I32", rng.integers(-(2**31), 2**31, (2, 8)).astype(np.int32)
    tensors[f"{QUERY}.scales"] = "F16", (rng.integers(1, 99, (2, 64)) / 1024).astype(np.float16)


GPTQ = {
    "quant_method": "gptq",
    "bits": 4,
    "group_size": 32,
    "sym": False,
    "desc_act": False,
    "checkpoint_format": "gptq",
}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm"}


def gptq(folder: Path) -> Path:
    """A model one matrix of which is GPTQ's."""
    return _model(folder, lambda t: _packed(t, False), quantization_config=GPTQ)


def dense_gguf(root: Path) -> Job:
    return convert(_model(root / "m"), root / "x.gguf", _texts(root / "m"), type="q8_0")


def dense_folder(root: Path) -> Job:
    return convert(_model(root / "m"), root / "x", _texts(root / "m"))


def llama3_gguf(root: Path) -> Job:
    folder = shutil.copytree(DATA / "checkpoints" / "llama3-bpe" / "hf", root / "m")
    return convert(folder, root / "x.gguf", (folder / "config.json", folder / "generation_config.json"),
                   type="f16", pre="llama-bpe")  # fmt: skip


def gemma_gguf(root: Path) -> Job:
    folder = shutil.copytree(DATA / "checkpoints" / "gemma3-text" / "hf", root / "m")
    return convert(folder, root / "x.gguf", (folder / "config.json",), type="q8_0")


def gemma_sbs(root: Path) -> Job:
    folder = shutil.copytree(DATA / "checkpoints" / "gemma3-text" / "hf", root / "m")
    return convert(folder, root / "x.sbs", (folder / "config.json",), type="sfp", own={"sbs_model": "gemma3-1b"})


def gptq_gguf(root: Path) -> Job:
    return convert(gptq(root / "m"), root / "x.gguf", (root / "m" / "config.json",), type="q8_0")


def gptq_folder(root: Path) -> Job:
    return convert(gptq(root / "m"), root / "x", (root / "m" / "config.json",))


def gptq_side_file(root: Path) -> Job:
    folder = _model(root / "m", lambda t: _packed(t, False))
    (folder / "quantize_config.json").write_text(json.dumps({k: v for k, v in GPTQ.items() if k != "quant_method"}))
    return convert(folder, root / "x.gguf", (folder / "quantize_config.json",), type="q8_0")


def awq_gguf(root: Path) -> Job:
    folder = _model(root / "m", lambda t: _packed(t, True), quantization_config=AWQ)
    return convert(folder, root / "x.gguf", (folder / "config.json",), type="q8_0")


def nf4_folder(root: Path) -> Job:
    folder, _ = nf4_llama(root / "m")
    return convert(folder, root / "x", (folder / "config.json",))


def encoding(root: Path, stem: str) -> Job:
    """One recorded encoding as a folder."""
    folder = root / "m"
    folder.mkdir()
    raw = (DATA / "dequant" / "encodings.safetensors").read_bytes()
    (n,) = struct.unpack_from("<Q", raw)
    header, parts, at = {}, [], 0
    for name, entry in json.loads(raw[8 : 8 + n]).items():
        if name.startswith(f"{stem}."):
            begin, end = (8 + n + k for k in entry["data_offsets"])
            parts.append(raw[begin:end])
            header[name] = {**entry, "data_offsets": [at, at + end - begin]}
            at += end - begin
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"".join(parts))
    cases = json.loads((DATA / "dequant" / "cases.json").read_text())
    said = next(case["quantization_config"] for case in cases if f"{case['name']}.".startswith(f"{stem}."))
    config = {"torch_dtype": "bfloat16", **({"quantization_config": said} if said else {})}
    (folder / "config.json").write_text(json.dumps(config))
    return convert(folder, root / "x", (folder / "config.json",))


def _recipe(root: Path, output: str, text: str, *texts: str, **options: Any) -> Job:
    _model(root / "a")
    _model(root / "b", _noisy(1))
    gptq(root / "q")
    (root / "recipe.yml").write_text(text.replace("ROOT", str(root)))
    files = (root / "recipe.yml", *(root / name for name in texts))
    return convert(root / "recipe.yml", root / output, files, **options)


_LINEAR = (
    "merge_method: linear\nmodels:\n- {model: ROOT/a, parameters: {weight: 0.3}}\n- {model: ROOT/b, parameters: {weight: 0.7}}\n"
    "dtype: bfloat16\n"
)
_DARE = (
    "merge_method: dare_ties\nbase_model: ROOT/a\nmodels:\n- {model: ROOT/b, parameters: {weight: 1.0, density: 0.5}}\n"
    "parameters: {normalize: true, rescale: true}\nout_dtype: float16\n"
)
_TIES = _DARE.replace("dare_ties", "ties")
_QUANTIZED = "merge_method: passthrough\nmodels:\n- {model: ROOT/q, parameters: {scale: 0.5}}\n"
_MIXTURE = (
    "base_model: ROOT/a\ngate_mode: random\ndtype: bfloat16\nexperts_per_token: 1\nexperts:\n"
    "- {source_model: ROOT/a}\n- {source_model: ROOT/b, noise_scale: 0.1, residual_scale: 0.5}\n"
)


def linear_gguf(root: Path) -> Job:
    return _recipe(root, "x.gguf", _LINEAR, "a/config.json", "b/config.json", type="q8_0")


def dare_folder(root: Path) -> Job:
    return _recipe(root, "x", _DARE, "a/config.json", "b/config.json", "a/tokenizer_config.json")


def ties_gguf(root: Path) -> Job:
    return _recipe(root, "x.gguf", _TIES, type="f16")


def mixture_folder(root: Path) -> Job:
    return _recipe(root, "x", _MIXTURE, "a/config.json", "b/config.json")


def quantized_merge_gguf(root: Path) -> Job:
    return _recipe(root, "x.gguf", _QUANTIZED, "q/config.json", type="f16")


def quantized_merge_folder(root: Path) -> Job:
    return _recipe(root, "x", _QUANTIZED, "q/config.json")


def adapter_gguf(root: Path) -> Job:
    """A base that is quantized, and an adapter that changes what is."""
    rng = np.random.default_rng(2)
    (root / "d").mkdir()
    module = f"base_model.model.{QUERY}"
    write_safetensors(root / "d" / "adapter_model.safetensors", {
        f"{module}.lora_A.weight": ("F32", rng.standard_normal((2, 64)).astype(np.float32)),
        f"{module}.lora_B.weight": ("F32", rng.standard_normal((64, 2)).astype(np.float32)),
    })  # fmt: skip
    said = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "use_rslora": False, "fan_in_fan_out": False, "bias": "none",
            "rank_pattern": {}, "alpha_pattern": {"q_proj": 3}, "target_modules": ["q_proj"], "use_dora": False}  # fmt: skip
    (root / "d" / "adapter_config.json").write_text(json.dumps(said))
    text = "merge_method: passthrough\nmodels: [{model: ROOT/q+ROOT/d}]\n"
    return _recipe(root, "x.gguf", text, "q/config.json", "d/adapter_config.json", type="f16")


def lora_gguf(root: Path) -> Job:
    """An adapter as a file of its own, beside a base of which only the configuration counts."""
    job = adapter_gguf(root)
    texts = tuple(path for path in job.texts if path.name in ("adapter_config.json", "config.json"))
    return convert(root / "d", root / "y.gguf", texts, base=str(root / "q"), type="f16")


def extraction(root: Path) -> Job:
    gptq(root / "a")
    _model(root / "b", _noisy(3))
    return Job(
        lambda o: conversion.prepare_adapter(root / "a", root / "b", root / "x", Extraction(ModuleChoice(4)), o),
        (root / "a" / "config.json", root / "b" / "config.json", root / "b" / "tokenizer_config.json"),
    )


def requantized(root: Path) -> Job:
    """A GGUF file again, weighted."""
    import streamconv

    streamconv.convert(_model(root / "m"), root / "in.gguf", type="f16")
    weights = {n: np.random.default_rng(i).random(64, np.float32) for i, n in enumerate(IMPORTANT)}
    write_imatrix(root / "i.dat", weights)
    return convert(root / "in.gguf", root / "x.gguf", (), type="q4_0", imatrix=(root / "i.dat",))


IMPORTANT = ("blk.0.ffn_up.weight", "blk.1.attn_q.weight")


def write_imatrix(path: Path, weights: dict[str, np.ndarray]) -> None:
    """An importance matrix in the older format."""
    file = struct.pack("<i", len(weights))
    for name, w in weights.items():
        file += struct.pack("<i", len(name)) + name.encode() + struct.pack("<ii", 0, w.size) + w.tobytes()
    path.write_bytes(file)


def projector(root: Path) -> Job:
    folder = root / "m"
    folder.mkdir()
    rng = np.random.default_rng(4)
    shapes = {
        "vision_tower.vision_model.embeddings.patch_embedding.weight": (16, 3, 4, 4),
        "vision_tower.vision_model.embeddings.patch_embedding.bias": (16,),
        "vision_tower.vision_model.embeddings.position_embedding.weight": (4, 16),
        "vision_tower.vision_model.post_layernorm.weight": (16,),
        "multi_modal_projector.mm_input_projection_weight": (16, 32),
        "multi_modal_projector.mm_soft_emb_norm.weight": (16,),
        **{f"vision_tower.vision_model.encoder.layers.0.mlp.fc1.{kind}": shape
           for kind, shape in (("weight", (64, 16)), ("bias", (64,)))},
    }  # fmt: skip
    tensors: Tensors = {n: ("BF16", bf16(rng.standard_normal(s).astype(np.float32))) for n, s in shapes.items()}
    write_safetensors(folder / "model.safetensors", tensors)
    vision = {"hidden_size": 16, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 8,
              "patch_size": 4, "layer_norm_eps": 1e-6}  # fmt: skip
    config = {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "vision_config": vision,
              "text_config": {"hidden_size": 32}, "mm_tokens_per_image": 4}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    said = {"image_mean": [0.5, 0.5, 0.4], "image_std": [0.5, 0.5, 0.6]}
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    return convert(folder, root / "x.gguf", _texts(folder), type="f16", mmproj=True)


JOBS: dict[str, Callable[[Path], Job]] = {
    job.__name__: job
    for job in (
        dense_gguf, dense_folder, llama3_gguf, gemma_gguf, gemma_sbs, gptq_gguf, gptq_folder, gptq_side_file, awq_gguf, nf4_folder,
        linear_gguf, dare_folder, ties_gguf, mixture_folder, quantized_merge_gguf, quantized_merge_folder, adapter_gguf, lora_gguf,
        extraction, requantized, projector,
    )
} | {stem: (lambda root, stem=stem: encoding(root, stem)) for stem in ENCODINGS}  # fmt: skip

#: options that decide no byte
NEUTRAL: dict[str, Any] = {
    "ram_bytes": 64 << 20, "threads": 3, "force": True, "update": True, "stop_after_s": 9.0, "verify": "none",
    "allow_nonfinite": True, "measure": True, "lenient": True, "allow_crimes": True, "io": "pread", "evict": True,
    "keep_packed": True, "offline": True, "refresh": True, "report": Path("no-report.jsonl"), "cluster": "local:2",
    "reuse": (Path(__file__),), "no_reuse": True, "manifest": True,
}  # fmt: skip
_OWN: list[Any] = [
    {"nothing": 1},
    *({"sbs_model": "gemma3-1b", key: value} for key, value in {"sbs_layout": "exporter", "max_seq_len": 64}.items()),
]
#: options that may
DECIDING: dict[str, list[Any]] = {
    "type": ["q4_0", "f16", "q8_0,f16", "copy", "f32", "bf16"], "imatrix": [()], "include_weights": [("ffn",)],
    "exclude_weights": [("ffn",)], "pure": [True], "leave_output_tensor": [True], "output_tensor_type": ["q8_0", "f16"],
    "token_embedding_type": ["q8_0", "f16"], "tensor_types": [("ffn_up=q8_0",), ("attn_q=f16",)],
    "tensor_type_file": [DATA / "rules.txt"], "copy": [True], "own": _OWN, "prune_layers": [(1,)],
    "override_kv": [("general.name=str:other",)], "allow_requantize": [True], "split_max_bytes": [20000],
    "split_max_tensors": [3], "keep_split": [True], "max_shard_bytes": [20000], "pre": ["gpt-2"], "vocab_only": [True],
    "mtp": [True], "no_mtp": [True], "dspark": [True], "target_model": [str(PLAIN)],
    "base": [str(PLAIN)], "lora": [(str(DATA / "no-adapter"),)],
    "mmproj": [True], "mmproj_type": ["f32"], "mistral_format": [True], "model_name": ["other"], "compat": [True], "seed": [1],
    "chunk_bytes": [1 << 12], "metadata": [DATA / "said.json"], "fuse_qkv": [True], "fuse_gate_up_exps": [True],
    "fp8_as_q8": [True], "dense_modules": [True], "no_tensor_first_split": [True], "cluster_tls": ["a,b,c"],
}  # fmt: skip


def other_options(options: Options) -> Iterator[tuple[str, Options]]:
    """``options`` with one of those that may decide bytes changed."""
    for name, values in DECIDING.items():
        for value in values:
            yield f"{name}={value}", replace(options, **{name: value})
