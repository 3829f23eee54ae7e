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
    r"visual|vision|audio|talker|code2wav|token2wav|mm_projector|multi_modal|vit_|patch|image|mlp1|query_tokens"
)


def toy_of(name: str, case: dict[str, Any]) -> dict[str, Any]:
    """A case as a toy: config.json, tensors of the text model, and the keys and tensors that the reference wrote.

    Keys whose values are numbers of tensors are left out, as the toys have other numbers.
    """
    config = case["files"]["config.json"]
    config = json.loads(config) if isinstance(config, str) else config
    output = case["outputs"]["f16"]
    found = {
        "name": name,
        "config": {key: _seen(value) if key in _SECTIONS else value for key, value in config.items()},
        "side": {key: value for key, value in case["files"].items() if key == "modules.json"},
        "tensors": toys.packed({t[0]: t[2] for t in sorted(case["tensors"]) if not _OTHERS.search(t[0])}),
        "keys": {
            k: _value(v) for k, v in output["kv"].items() if not k.startswith(("general.", "tokenizer.", "xielu."))
        },
        "made": toys.packed({t[0]: t[1][::-1] for t in output["tensors"]}),
    }
    if "target/config.json" in case["files"]:
        found["target"] = case["files"]["target/config.json"]
    model = toys.built(found)
    made = [[t[0], t[1][::-1]] for t in output["tensors"]]
    assert [[name, shape] for name, shape in toys.shapes(model).items()] == made, name
    return {**found, "digest": toys.digest(model)}


def _seen(section: dict[str, Any] | None) -> dict[str, Any]:
    """What text models ask of the section of another module."""
    return {key: value for key, value in (section or {}).items() if key == "deepstack_visual_indexes"}


def _value(said: dict[str, Any]) -> Any:
    return said["values"] if "values" in said else said["first"] if "first" in said else said["value"]


if __name__ == "__main__":
    zoo = Path(sys.argv[1]) / "golden" / "zoo"
    lines = [toy_of(name, json.loads((zoo / f"{name}.json").read_text())) for name in sys.argv[2:]]
    toys.STORED.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines), "utf-8")
