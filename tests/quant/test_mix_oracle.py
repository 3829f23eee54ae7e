"""Types and keys of random models, side by side with llama.cpp's quantizer."""

from __future__ import annotations

import json
import os
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest
from mix_cases import mix_options

from streamconv.errors import UsageError
from streamconv.metadata import Metadata, Value
from streamconv.quant.filetypes import BY_NUMBER, COPY, TARGET_TYPES
from streamconv.quant.mix import assign_types
from streamconv.quant.mix_facts import Choice, ModelFacts, TensorFacts
from streamconv.quant.requantize import parse_override, quantize_metadata

pytestmark = pytest.mark.oracle

# The peers' gguf package cannot read Q2_0.
FILE_TYPES = [t for t in BY_NUMBER.values() if t.selectable and t.name != "Q2_0"]
TYPES = [t for t in TARGET_TYPES if t != "Q2_0"]


def random_model(r: random.Random) -> dict[str, Any]:
    arch = r.choice(["llama", "llama", "falcon", "qwen2", "qwen2moe", "phi3", "olmo"])
    layers = r.choice([1, 4, 7, 9, 16, 24, 80])
    heads, heads_kv = r.choice([(8, 8), (8, 2), (8, 1), (4, 4)])
    experts = r.choice([0, 0, 2, 4, 8]) if arch in ("llama", "qwen2moe") else 0
    cols, ff = r.choice([256, 512, 256, 288, 80, 96]), r.choice([256, 512, 320, 80])
    stored = r.choice(["BF16", "F16", "F32"])
    counts = {
        "block_count": layers, "context_length": 512, "embedding_length": cols, "feed_forward_length": ff,
        "attention.head_count": heads, "attention.head_count_kv": heads_kv, "vocab_size": 32,
    }  # fmt: skip
    if experts:
        counts |= {"expert_count": experts, "expert_used_count": 1, "expert_feed_forward_length": ff}
    keys: dict[str, Any] = {"general.name": ["STRING", "random"], "general.file_type": ["UINT32", 1]}
    keys |= {f"{arch}.{k}": ["UINT32", v] for k, v in counts.items()}
    keys |= {f"{arch}.attention.layer_norm{k}_epsilon": ["FLOAT32", 1e-5] for k in ("", "_rms")}
    tensors: list[Any] = [["token_embd.weight", [32, cols], stored], ["output_norm.weight", [cols], "F32"]]
    if r.random() < 0.6:
        tensors.append(["output.weight", [32, cols], stored])
    fused = r.random() < 0.4
    for block in range(layers):
        rows = {"attn_qkv": [24, cols]} if fused else {"attn_q": [8, cols], "attn_k": [4, cols], "attn_v": [4, cols]}
        rows["attn_output"] = [8, cols]
        if experts and block:
            rows |= {f"ffn_{k}_exps": [experts, 4, cols] for k in ("gate", "up")}
            rows |= {"ffn_down_exps": [experts, 4, ff], "ffn_gate_inp": [experts, cols]}
        else:
            rows |= {"ffn_gate": [4, cols], "ffn_up": [4, cols], "ffn_down": [4, ff]}
        tensors += [[f"blk.{block}.{name}.weight", shape, stored] for name, shape in rows.items()]
        tensors.append([f"blk.{block}.attn_norm.weight", [cols], "F32"])
    r.shuffle(tensors)
    return {"arch": arch, "keys": keys, "tensors": tensors}


def random_case(r: random.Random, model: dict[str, Any]) -> dict[str, Any]:
    blocks = model["keys"][f"{model['arch']}.block_count"][1]
    options: dict[str, Any] = {}
    maybe = {
        "pure": lambda: True,
        "leave_output": lambda: True,
        "copy": lambda: True,
        "output_type": lambda: r.choice(TYPES),
        "token_type": lambda: r.choice(TYPES),
        "tensor_types": lambda: [
            [p, r.choice(TYPES)] for p in r.sample(["attn_v", "ffn_.*_exps", "token", r"\.0\."], 2)
        ],
        "prune": lambda: sorted(r.sample(range(blocks), max(1, blocks // 3))) if blocks > 2 else [],
        "override_kv": lambda: [["general.name", "str", "x"], ["my.int", "int", -5], ["my.float", "float", 0.1]],
    }
    options = {key: make() for key, make in maybe.items() if r.random() < 0.15}
    covered = [n for n, shape, _ in model["tensors"] if len(shape) > 1 and n != "token_embd.weight"]
    return model | {
        "ftype": r.choice(FILE_TYPES).number,
        "options": {k: v for k, v in options.items() if v},
        "imatrix": covered if r.random() < 0.7 else None,
    }


def ours(case: dict[str, Any]) -> tuple[list[Choice], Metadata] | None:
    keys = Metadata({"general.architecture": Value("STRING", case["arch"])})
    for key, (kind, value) in case["keys"].items():
        keys.add(key, Value(kind, value))
    o = case["options"]
    filetype = COPY if o.get("copy") else BY_NUMBER[case["ftype"]]
    tensors = [TensorFacts(n, tuple(shape), kind) for n, shape, kind in case["tensors"]]
    try:
        choices = assign_types(tensors, ModelFacts.from_metadata(keys), filetype, mix_options(o), case["imatrix"])
    except UsageError:
        return None
    overrides = [parse_override(f"{k}={kind}:{value}") for k, kind, value in o.get("override_kv", [])]
    return choices, quantize_metadata(keys, filetype, overrides=overrides, pruned=o.get("prune", ()))


@pytest.mark.slow
def test_llama_quantize_decides_the_same_for_random_models(peers: Path) -> None:
    r = random.Random(20250101)
    cases = [random_case(r, model) for model in (random_model(r) for _ in range(8)) for _ in range(4)]
    done = subprocess.run(
        [str(peers), str(Path(__file__).with_name("llama_quantize_peer.py"))],
        input="\n".join(json.dumps(c) for c in cases),
        env=os.environ | {"GGML_NO_BACKTRACE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(cases), done.stderr[-2000:]
    assert sum("tensors" in a for a in answers) > len(cases) // 2
    for case, answer in zip(cases, answers, strict=True):
        label = (case["arch"], BY_NUMBER[case["ftype"]].name, case["options"], case["imatrix"] is not None)
        mine = ours(case)
        assert (mine is None) == ("refused" in answer), (label, answer)
        if mine:
            choices, keys = mine
            assert [[c.name, c.type.name] for c in choices] == answer["tensors"], label
            assert [k for k, _ in keys.items()] == [k for k, _ in answer["keys"]], label
            for key, value in answer["keys"]:
                wanted = pytest.approx(value, rel=1e-7) if isinstance(value, float) else value
                assert keys.get(key) == wanted, (key, label)
