"""Mixtures of experts from the command line: merged straight into a quantized file, and decoded from what others quantized."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import gguf_reader
import numpy as np
import pytest
from quantized_files import nf4
from small_models import read_safetensors, write_safetensors

from streamconv.cli import main

Parts = dict[str, tuple[str, np.ndarray]]
#: (name of a weight, its shape, numbers) -> what is stored, and the values it stands for
Encode = Callable[[str, tuple[int, ...], np.random.Generator], tuple[Parts, np.ndarray]]

HIDDEN, EXPERTS = 256, 6


def converted(source: Path, out: Path, *options: str) -> gguf_reader.Gguf:
    assert main(["convert", str(source), str(out), "--quiet", "--threads", "1", *options]) == 0
    return gguf_reader.read(out)


def qwen3moe(folder: Path, seed: int, data: Path) -> Path:
    """A Qwen 3 mixture of two layers, six experts and 256 columns everywhere, so that every K type fits."""
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (512, HIDDEN), "model.norm.weight": (HIDDEN,)}
    for block in range(2):
        at = f"model.layers.{block}."
        shapes |= {f"{at}self_attn.{x}_proj.weight": (256 if x in "qo" else 128, HIDDEN) for x in "qkvo"}
        shapes |= {f"{at}self_attn.{x}_norm.weight": (64,) for x in "qk"}
        shapes |= {f"{at}{norm}_layernorm.weight": (HIDDEN,) for norm in ("input", "post_attention")}
        shapes[f"{at}mlp.gate.weight"] = EXPERTS, HIDDEN
        for x in range(EXPERTS):
            shapes |= {f"{at}mlp.experts.{x}.{part}_proj.weight": (256, 256) for part in ("gate", "up", "down")}
    rng = np.random.default_rng(seed)
    folder.mkdir()
    tensors = {name: ("F32", (rng.standard_normal(shape) * 0.1).astype("<f4")) for name, shape in shapes.items()}
    write_safetensors(folder / "model.safetensors", tensors)
    (folder / "config.json").write_text(json.dumps({
        "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_size": HIDDEN, "intermediate_size": 512,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 512,
        "num_experts": EXPERTS, "num_experts_per_tok": 2, "moe_intermediate_size": 256, "norm_topk_prob": True,
        "max_position_embeddings": 256, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": True,
        "torch_dtype": "float32",
    }))  # fmt: skip
    for path in (data / "checkpoints" / "qwen3-tied" / "hf").glob("*tok*"):
        shutil.copy(path, folder / path.name)
    return folder


@pytest.mark.slow
def test_a_merge_of_mixtures_becomes_k_types_in_one_step(data: Path, tmp_path: Path) -> None:
    models = [qwen3moe(tmp_path / name, seed, data) for seed, name in enumerate("ab")]
    listed = ", ".join(
        f"{{model: {model}, parameters: {{weight: {w}}}}}" for model, w in zip(models, (0.25, 0.75), strict=True)
    )
    recipe = tmp_path / "blend.yml"
    recipe.write_text(f"merge_method: linear\ndtype: float32\nmodels: [{listed}]\n")
    assert main(["convert", str(recipe), str(tmp_path / "folder"), "--quiet"]) == 0
    pre = "--pre", "qwen2"
    exact = converted(recipe, tmp_path / "exact.gguf", "--type", "F32", *pre)
    a, b = (read_safetensors(model / "model.safetensors") for model in models)
    for part in ("gate", "up", "down"):
        names = [f"model.layers.1.mlp.experts.{x}.{part}_proj.weight" for x in range(EXPERTS)]
        want = np.stack([np.float32(0.25) * a[name][1] + np.float32(0.75) * b[name][1] for name in names])
        found = np.frombuffer(exact.tensors[f"blk.1.ffn_{part}_exps.weight"].data, "<f4").reshape(want.shape)
        np.testing.assert_allclose(found, want, rtol=1e-6, atol=1e-7)
    once = converted(recipe, tmp_path / "once.gguf", "--type", "Q4_K_M", *pre)
    twice = converted(tmp_path / "folder", tmp_path / "twice.gguf", "--type", "Q4_K_M", *pre)
    assert {n: t.type for n, t in once.tensors.items()} == {n: t.type for n, t in twice.tensors.items()}
    assert [n for n, t in once.tensors.items() if t.data != twice.tensors[n].data] == []
    assert {once.tensors[f"blk.0.ffn_{part}_exps.weight"].type for part in ("gate", "up")} == {"Q4_K"}
    assert once.tensors["blk.1.ffn_down_exps.weight"].type == "Q6_K"


def gptq(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> tuple[Parts, np.ndarray]:
    """Four bits, version 1, groups of 16 inputs."""
    n, k = shape
    q, z = rng.integers(0, 16, (k, n)), rng.integers(1, 16, (k // 16, n))
    scales = rng.uniform(0.01, 0.1, (k // 16, n)).astype(np.float16)
    group = np.arange(k) // 16

    def words(codes: np.ndarray) -> np.ndarray:
        eights = codes.reshape(len(codes), -1, 8).astype(np.uint32)
        return (eights << (4 * np.arange(8, dtype=np.uint32))).sum(2, dtype=np.uint32).view("<i4")

    module = name.removesuffix(".weight")
    parts = {
        f"{module}.qweight": ("I32", words(q.T).T.copy()), f"{module}.qzeros": ("I32", words(z - 1)),
        f"{module}.scales": ("F16", scales), f"{module}.g_idx": ("I32", group.astype("<i4")),
    }  # fmt: skip
    return parts, ((q - z[group]).astype(np.float32) * scales[group].astype(np.float32)).T


def float8(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> tuple[Parts, np.ndarray]:
    """E4M3 with a scale for every 16 rows and columns, as DeepSeek has them for every 128."""
    n, k = shape
    codes = (rng.integers(0, 2, shape) << 7 | rng.integers(0, 120, shape)).astype(np.uint8)
    exponent, mantissa = (codes >> 3 & 15).astype(int), codes & 7
    x = np.where(exponent, (1 + mantissa / 8) * 2.0 ** (exponent - 7), mantissa * 2.0**-9) * np.where(codes >> 7, -1, 1)
    scales = rng.uniform(0.001, 0.01, (-(-n // 16), -(-k // 16))).astype("<f4")
    spread = scales[np.arange(n) // 16][:, np.arange(k) // 16]
    return {name: ("F8_E4M3", codes), f"{name}_scale_inv": ("F32", scales)}, x.astype(np.float32) * spread


def nf4_of(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> tuple[Parts, np.ndarray]:
    return nf4(name, shape, rng)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "encode", "section"),
    [
        ("mixtral", nf4_of, {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}),
        ("deepseek3", float8, {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [16, 16]}),
        ("qwen3moe", gptq, {"quant_method": "gptq", "bits": 4, "group_size": 16, "desc_act": False}),
    ],
)
def test_a_quantized_mixture_is_what_its_decoded_values_are(
    case: str, encode: Encode, section: dict[str, Any], recipes: ModuleType, reference: Path, tmp_path: Path
) -> None:
    stored = recipes.materialise(reference / "golden" / "zoo" / f"{case}.json", tmp_path / "packed")
    shutil.copytree(tmp_path / "packed", tmp_path / "plain")
    tensors = read_safetensors(tmp_path / "packed" / "model.safetensors")
    rng, packed, plain = np.random.default_rng(3), Parts(), Parts()
    encoded = 0
    for name, (kind, words) in tensors.items():
        if words.ndim == 2 and not any(
            part in name for part in ("embed", "lm_head", "mlp.gate.", "block_sparse_moe.gate.")
        ):
            parts, values = encode(name, words.shape, rng)
            packed |= parts
            plain[name] = "F32", values.astype("<f4")
            encoded += 1
        else:
            packed[name] = plain[name] = kind, words
    assert encoded >= 20
    for folder, content in (("packed", packed), ("plain", plain)):
        write_safetensors(tmp_path / folder / "model.safetensors", content)
        config = json.loads((tmp_path / folder / "config.json").read_text())
        config.pop("quantization_config", None)
        config |= {"quantization_config": section} if folder == "packed" else {}
        (tmp_path / folder / "config.json").write_text(json.dumps(config))
    pre = ["--pre", stored["pretokenizer_override"]] if stored.get("pretokenizer_override") else []
    for kind in ("F32", "Q8_0", "Q4_K_M"):
        found = converted(tmp_path / "packed", tmp_path / f"{kind}.gguf", "--type", kind, *pre)
        want = converted(tmp_path / "plain", tmp_path / f"plain-{kind}.gguf", "--type", kind, *pre)
        names = [t[0] for t in stored["outputs"]["f16"]["tensors"]]
        assert list(found.tensors) == list(want.tensors)
        assert set(names) == set(found.tensors)
        assert [
            n for n, t in want.tensors.items() if (t.type, t.ne) != (found.tensors[n].type, found.tensors[n].ne)
        ] == []
        assert [n for n, t in want.tensors.items() if t.data != found.tensors[n].data] == []
