"""Writes ``tests/data/families.json`` from the recorded conversions of the reference converter.

python tests/models/make_families.py REFERENCE CASE...
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import toys

_SECTIONS = ("vision_config", "audio_config", "talker_config", "token2wav_config")
_OTHERS = re.compile(
    r"visual|vision(?!_expert|_mlp)|audio|talker|code2wav|token2wav|mm_projector|multi_modal|vit_|patch|image|mlp1|query_tokens"
)
#: keys whose values are numbers of tensors
_OF_TENSORS = re.compile(
    r"general\.|tokenizer\.|xielu\.|jais\.attention\.max_alibi_bias|talkie\.logit_scale|qwen4exp\.ple\.(layer_multipliers|head_)"
)


def toy_of(name: str, case: dict[str, Any]) -> dict[str, Any]:
    """A case as a toy: config.json, tensors of the text model, and the keys and tensors that the reference wrote.

    Keys whose values are numbers of tensors are left out, as the toys have other numbers.
    """
    config = case["files"]["config.json"]
    config = json.loads(config) if isinstance(config, str) else config
    output = case["outputs"]["f16"]
    stored = sorted((t[0], _decoded(t)) for t in case["tensors"] if not t[0].endswith(".scale"))
    found = {
        "name": name,
        "config": {key: _seen(value) if key in _SECTIONS else value for key, value in config.items()},
        "side": {key: value for key, value in case["files"].items() if key == "modules.json"},
        "tensors": toys.packed({name: shape for name, shape in stored if not _OTHERS.search(name)}),
        "keys": {k: value(v) for k, v in output["kv"].items() if not _OF_TENSORS.match(k)},
        "made": toys.packed({t[0]: t[1][::-1] for t in output["tensors"]}),
    }
    if "target/config.json" in case["files"]:
        found["target"] = case["files"]["target/config.json"]
    model = toys.built(found)
    made = [[t[0], t[1][::-1]] for t in output["tensors"]]
    assert sorted([name, shape] for name, shape in toys.shapes(model).items()) == sorted(made), name
    return {**found, "digest": toys.digest(model)}


def _decoded(tensor: list[Any]) -> list[int]:
    """The shape of a tensor, of one that holds two values a byte that of its values."""
    return [*tensor[2][:-1], 2 * tensor[2][-1]] if tensor[1] == "I8" else tensor[2]


def _seen(section: dict[str, Any] | None) -> dict[str, Any]:
    """What text models ask of the section of another module."""
    return {key: value for key, value in (section or {}).items() if key == "deepstack_visual_indexes"}


def value(said: dict[str, Any]) -> Any:
    """A recorded value; of a long array its first items."""
    return said["values"] if "values" in said else said["first"] if "first" in said else said["value"]


if __name__ == "__main__":
    zoo = Path(sys.argv[1]) / "golden" / "zoo"
    lines = [toy_of(name, json.loads((zoo / f"{name}.json").read_text())) for name in sys.argv[2:]]
    toys.STORED.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines), "utf-8")
