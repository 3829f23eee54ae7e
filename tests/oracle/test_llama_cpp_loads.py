"""Every architecture in real llama.cpp: our files load, compute finite numbers, and the recorded logits where there are some."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from reference_data import reference_dir

import streamconv
from streamconv.cli import main

pytestmark = [pytest.mark.oracle, pytest.mark.slow]

Ask = Callable[..., list[dict[str, Any]]]

_GOLDEN = (reference_dir() or Path("absent")) / "golden"
_NONE = [pytest.param("", marks=pytest.mark.skip("no reference data"))]
#: whose file of the reference does not load, or was never tried
_LOAD_ONLY = {"exaone", "qwen1", "t5", "plamo2"}
#: whose made-up numbers overflow, or which suppress tokens; their tensors are those of the reference, byte for byte
_OVERFLOWING = {"deepseek4", "deepseek4-vision", "qwen3tts"}


def asked() -> dict[str, str]:
    """Case -> what llama.cpp is to do with its file."""
    found = {}
    for path in sorted((_GOLDEN / "zoo").glob("*.json")):
        case = json.loads(path.read_text())
        if "kv" not in case["outputs"].get("f16", {}):
            continue
        if path.stem in _LOAD_ONLY:
            found[path.stem] = "load"
        elif str(case.get("loads")).startswith("LOADED"):
            found[path.stem] = "evaluate"
    return found


ASKED = asked()
LOGITS = sorted(path.parent.name for path in (_GOLDEN / "gguf").glob("*/logits.llamacpp-f32.npy"))


@pytest.mark.parametrize("name", ASKED or _NONE)
def test_every_architecture_loads_and_computes_finite_numbers(
    recipes: ModuleType, reference: Path, llama: Ask, tmp_path: Path, name: str
) -> None:
    source, out = tmp_path / "hf", tmp_path / "x.gguf"
    case = recipes.materialise(reference / "golden" / "zoo" / f"{name}.json", source)
    options = [word.format(dir=source, folder=source) for word in case["outputs"]["f16"]["args"]]
    options[options.index("--outtype")] = "--type"
    if case.get("pretokenizer_override"):
        options += ["--pre", case["pretokenizer_override"]]
    assert main(["convert", str(source), str(out), "--quiet", *options]) == 0
    (answer,) = llama({"do": ASKED[name], "file": str(out)})
    assert answer["ok"], answer
    assert answer.get("finite", True) or name in _OVERFLOWING


@pytest.mark.parametrize("case", LOGITS or _NONE)
def test_logits_are_those_of_the_reference_converter_s_file(
    reference: Path, llama: Ask, tmp_path: Path, case: str
) -> None:
    folder = reference / "golden" / "gguf" / case
    facts = json.loads((folder / "case.json").read_text())
    out, made = tmp_path / "x.gguf", tmp_path / "logits.npy"
    streamconv.convert(folder / "hf", out, type="f32", pre=facts["pretokenizer_override"])
    question = {"do": "logits", "file": str(out), "tokens": facts["token_ids"], "out": str(made)}
    assert llama(question)[0] == {"ok": True}
    ours, recorded = np.load(made), np.load(folder / "logits.llamacpp-f32.npy")
    assert ours.shape == recorded.shape
    assert np.abs(ours - recorded).max() <= 1e-3 * recorded.std()


def test_a_file_that_ends_llama_cpp_is_told_apart_from_its_neighbours(
    tiny_model: Path, llama: Ask, tmp_path: Path
) -> None:
    whole, broken = tmp_path / "whole.gguf", tmp_path / "broken.gguf"
    streamconv.convert(tiny_model, whole, type="q8_0", threads=1)
    broken.write_bytes(whole.read_bytes().replace(b"blk.1.attn_q.weight", b"blk.1.attn_q.weighs"))
    answers = llama(*({"do": "evaluate", "file": str(path)} for path in (whole, broken, whole)))
    assert [answer["ok"] for answer in answers] == [True, False, True]
