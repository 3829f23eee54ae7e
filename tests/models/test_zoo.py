"""Every recorded conversion of the reference converter, where the reference data are there: the same keys, tensors and bytes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import gguf_reader
import pytest
from reference_data import reference_dir

import streamconv
from streamconv.models import FAMILIES, PROJECTORS
from streamconv.models.config import architecture, tower_architectures

#: keys that depend on the name of the folder
_FREE = tuple(
    f"general.{key}" for key in ("name", "basename", "finetune", "version", "size_label", "quantization_version")
)
#: keys that the reference leaves to a loader's guess, or its loader asks for in vain
_MORE = re.compile(
    r"extra key ([\w-]+\.rope\.(local_freq_base|freq_base_swa)|(exaone|qwen)\.attention\.layer_norm_rms_epsilon)"
)

#: a row of the table of tokens that the reference drops by mistake, so that runtimes do not load its projector
_FORGOTTEN = "v.token_embd.img_break"
#: options of the reference converter -> ours; the value of one that has any is the next word
_OPTIONS = {
    "--mtp": "mtp", "--no-mtp": "no_mtp", "--target-model-dir": "target_model",
    "--mmproj": "mmproj", "--mistral-format": "mistral_format", "--fuse-qkv": "fuse_qkv",
    "--fuse-gate-up-exps": "fuse_gate_up_exps",
}  # fmt: skip


def options(words: Sequence[str], folder: Path) -> dict[str, Any]:
    """The options that ``words`` of the reference converter's command line say, without the type."""
    said: dict[str, Any] = {}
    left = iter(words)
    for word in left:
        if word == "--outtype":
            next(left)
        elif word == "--target-model-dir":
            said[_OPTIONS[word]] = next(left).replace("{dir}", str(folder)).replace("{folder}", str(folder))
        else:
            said[_OPTIONS[word]] = True
    return said


def is_known(words: Sequence[str]) -> bool:
    """Whether all options among ``words`` are there."""
    return {word for word in words if word.startswith("--")} <= {"--outtype", *_OPTIONS}


def zoo() -> Iterator[tuple[str, dict[str, Any]]]:
    """The recorded cases of architectures that there are, without options that there are not."""
    folder = reference_dir()
    for path in sorted((folder / "golden" / "zoo").glob("*.json")) if folder is not None else ():
        case = json.loads(path.read_text())
        config = case["files"].get("config.json", {})
        known = isinstance(config, dict) and architecture(config) in FAMILIES
        seen = isinstance(config, dict) and any(name in PROJECTORS for name in tower_architectures(config))
        kinds = [*(("f16", "q8_0") if known else ()), *(("mmproj-f16",) if seen else ())]
        outputs = {kind: o for kind, o in case["outputs"].items() if kind in kinds and "kv" in o}
        if outputs and all(is_known(output["args"]) for output in outputs.values()):
            yield path.stem, {**case, "outputs": outputs}


CASES = dict(zoo())


def differences(found: gguf_reader.Gguf, output: Mapping[str, Any]) -> list[str]:
    """What is not as the reference has it, in words."""
    tensors = [
        {
            "name": name,
            "ne": ne,
            "type": kind,
            "sha256": sha,
            "offset": found.tensors[name].offset if name in found.tensors else 0,
        }
        for name, ne, kind, sha in output["tensors"]
    ]
    if _FORGOTTEN not in {tensor["name"] for tensor in tensors}:
        found.tensors.pop(_FORGOTTEN, None)
    told = gguf_reader.differences(found, {"kv": output["kv"], "tensors": tensors}, _FREE)
    return [each for each in told if not _MORE.fullmatch(each)]


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES or [pytest.param("", marks=pytest.mark.skip("no reference data"))])
def test_a_conversion_is_that_of_the_reference_converter(
    name: str, recipes: ModuleType, reference: Path, tmp_path: Path
) -> None:
    case = CASES[name]
    recipes.materialise(reference / "golden" / "zoo" / f"{name}.json", tmp_path / "hf")
    for kind, expected in case["outputs"].items():
        out = tmp_path / f"{kind}.gguf"
        said = {**options(expected["args"], tmp_path / "hf"), "pre": case.get("pretokenizer_override") or None}
        streamconv.convert(tmp_path / "hf", out, type=kind.removeprefix("mmproj-"), threads=1, **said)
        found = gguf_reader.read(out)
        told = [differences(found, each) for each in (expected, *expected.get("alt", {}).values())]
        assert min(told, key=len) == []
