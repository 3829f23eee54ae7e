"""Merging side by side with mergekit: bf16 models of the Llama layout, folders in, a folder out.

    merge.py --peer ~/.cache/streamconv/mergekit-peer --work /tmp/bench      one JSON line per run on stdout

The peer is an environment with mergekit 0.1.5 (``python -m venv PEER; PEER/bin/python -m pip install mergekit==0.1.5``). Each
tool runs as a process of its own, with its imports; the best of the runs counts, inputs are in the page cache (they are read
before every run, for ours hands them back after use), kernels and modules are compiled. ``--copy SIZE`` also merges models of that
size, warm and from cold storage, and copies one of them with cp: ``of_cp`` compares bytes read and written per second.
"""

from __future__ import annotations

import argparse
import json
import shutil
import struct
import sys
from pathlib import Path

import numpy as np
from checkpoint import TOKENIZER, bf16
from measure import drop_caches, place, run

CP = "cp of one input and sync"
#: hidden, feed-forward, heads, vocabulary, layers
SIZES = {"300M": (1024, 2816, 16, 32000, 18), "1.5B": (2048, 5632, 16, 32000, 26)}
RECIPES = {
    "linear": """merge_method: linear
models:
- {model: a, parameters: {weight: 0.6}}
- {model: b, parameters: {weight: 0.4}}
dtype: bfloat16
""",
    "slerp": """merge_method: slerp
base_model: a
models: [{model: a}, {model: b}]
parameters: {t: 0.4}
dtype: bfloat16
""",
    "ties": """merge_method: ties
base_model: a
models:
- {model: b, parameters: {weight: 0.5, density: 0.5}}
- {model: c, parameters: {weight: 0.5, density: 0.3}}
- {model: d, parameters: {weight: 0.5, density: 0.7}}
dtype: bfloat16
""",
    "dare_ties": """merge_method: dare_ties
base_model: a
models:
- {model: b, parameters: {weight: 0.5, density: 0.5}}
- {model: c, parameters: {weight: 0.5, density: 0.3}}
dtype: bfloat16
""",
    "model_stock": """merge_method: model_stock
base_model: a
models:
- {model: b}
- {model: c}
dtype: bfloat16
""",
}


def shapes(size: str) -> list[tuple[str, tuple[int, ...]]]:
    hidden, ffn, _, vocab, layers = SIZES[size]
    found: list[tuple[str, tuple[int, ...]]] = [("lm_head.weight", (vocab, hidden))]
    found.append(("model.embed_tokens.weight", (vocab, hidden)))
    for i in range(layers):
        p = f"model.layers.{i}."
        found += [(p + "input_layernorm.weight", (hidden,)), (p + "post_attention_layernorm.weight", (hidden,))]
        found += [(p + "mlp.down_proj.weight", (hidden, ffn))]
        found += [(p + f"mlp.{x}_proj.weight", (ffn, hidden)) for x in ("gate", "up")]
        found += [(p + f"self_attn.{x}_proj.weight", (hidden, hidden)) for x in "qkvo"]
    return [*found, ("model.norm.weight", (hidden,))]


def write(out: Path, size: str, seed: int) -> None:
    """A model whose difference to that of seed 0 is a tenth of its weights; does nothing when it is there."""
    if (out / "config.json").exists():
        return
    out.mkdir(parents=True, exist_ok=True)
    hidden, ffn, heads, vocab, layers = SIZES[size]
    tensors, header, at = shapes(size), {}, 0
    for name, dims in tensors:
        n_bytes = 2 * int(np.prod(dims))
        header[name] = {"dtype": "BF16", "shape": list(dims), "data_offsets": [at, at + n_bytes]}
        at += n_bytes
    text = json.dumps(header).encode()
    own = np.random.default_rng(seed)
    with open(out / "model.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for number, (_, dims) in enumerate(tensors):
            n = int(np.prod(dims))
            base = np.random.default_rng(number).standard_normal(n, np.float32)
            change = own.standard_normal(n, np.float32) if seed else np.float32(0)
            scale, mean = (0.1, 1.0) if len(dims) == 1 else (0.02, 0.0)
            f.write(bf16((base + np.float32(0.1) * change) * np.float32(scale) + np.float32(mean)).data)
    for name in ("tokenizer.model", "tokenizer_config.json"):
        shutil.copy(TOKENIZER / name, out / name)
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden, "intermediate_size": ffn,
        "num_attention_heads": heads, "num_key_value_heads": heads, "num_hidden_layers": layers, "vocab_size": vocab,
        "rms_norm_eps": 1e-5, "max_position_embeddings": 4096, "hidden_act": "silu", "tie_word_embeddings": False,
        "torch_dtype": "bfloat16", "bos_token_id": 2, "eos_token_id": 1,
    }  # fmt: skip
    (out / "config.json").write_text(json.dumps(config, indent=1))


def emit(**values: object) -> None:
    print(json.dumps({"bench": "merge", **place(), **values}), flush=True)


def best(command: list[str], out: Path, runs: int, inputs: list[Path], cold: bool = False) -> dict[str, float]:
    """The fastest of ``runs`` runs, with ``inputs`` in the page cache, or nothing."""
    found = []
    for _ in range(runs):
        if out.is_dir():
            shutil.rmtree(out)
        out.unlink(missing_ok=True)
        if cold:
            drop_caches()
        else:
            run(["cat", *map(str, inputs)])
        found.append(run(command))
    return min(found, key=lambda r: r.wall_s).as_dict()


def write_recipe(folder: Path, size: str, method: str) -> Path:
    """The recipe of ``method`` in ``folder``, beside the models it names."""
    text = RECIPES[method]
    for seed, name in enumerate("abcd"):
        if f"model: {name}" in text:
            write(folder / name, size, seed)
            text = text.replace(f"model: {name}", f"model: {folder / name}")
    recipe = folder / f"{method}.yml"
    recipe.write_text(text)
    return recipe


def compare(a: argparse.Namespace, size: str, methods: list[str]) -> None:
    folder, out = a.work / size, a.work / "out"
    for method in methods:
        recipe = write_recipe(folder, size, method)
        inputs = [folder / name / "model.safetensors" for name in "abcd" if str(folder / name) in recipe.read_text()]
        ours = [sys.executable, "-m", "streamconv", "merge", str(recipe), str(out), "--quiet", "--ram", a.ram]
        best(ours, out, 1, inputs)  # compiles what is not compiled yet
        mine = best(ours, out, a.runs, inputs)
        emit(tool="streamconv", method=method, size=size, ram=a.ram, **mine)
        if a.peer is not None:
            tool = str(a.peer / "bin" / "mergekit-yaml")
            theirs = best([tool, str(recipe), str(out), "--quiet"], out, a.peer_runs, inputs)
            ratio = round(theirs["wall_s"] / mine["wall_s"], 2)
            emit(tool="mergekit 0.1.5", method=method, size=size, ratio=ratio, **theirs)
        shutil.rmtree(out, ignore_errors=True)


def compare_with_copy(a: argparse.Namespace) -> None:
    """Merges, and cp of one input, by the bytes that they read and write each second."""
    size = a.copy
    folder, out = a.work / size, a.work / "out"
    for method in a.copy_methods.split(","):
        recipe = write_recipe(folder, size, method)
        inputs = [folder / name / "model.safetensors" for name in "abcd" if str(folder / name) in recipe.read_text()]
        copy = ["sh", "-c", f"cp -r {folder / 'a'} {out} && sync -f {out}"]
        ours = [sys.executable, "-m", "streamconv", "merge", str(recipe), str(out), "--quiet", "--ram", a.ram]
        best(ours, out, 1, inputs)  # compiles what is not compiled yet
        for cold in (False, True):
            speeds = {}
            for tool, command, n_files in ((CP, copy, 2), ("streamconv", ours, len(inputs) + 1)):
                found = best(command, out, a.runs, inputs, cold)
                speeds[tool] = n_files / found["wall_s"]
                emit(
                    bench="merge and copy", tool=tool, method=method, size=size, cold=cold, n_models=len(inputs),
                    of_cp=round(speeds[tool] / speeds[CP], 2), **found,
                )  # fmt: skip
        shutil.rmtree(out, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", type=Path, help="environment with mergekit; without it only ours is measured")
    parser.add_argument("--work", type=Path, default=Path("/tmp/streamconv-bench"))
    parser.add_argument("--ram", default="512MiB")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--peer-runs", type=int, default=1)
    parser.add_argument("--methods", default="linear,slerp,ties")
    parser.add_argument("--copy", choices=SIZES)
    parser.add_argument("--copy-methods", default="linear")
    a = parser.parse_args()
    a.work.mkdir(parents=True, exist_ok=True)
    compare(a, "300M", [m for m in a.methods.split(",") if m])
    if a.copy:
        compare_with_copy(a)


if __name__ == "__main__":
    main()
