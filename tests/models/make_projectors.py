"""Writes ``tests/data/projectors.json`` from the recorded conversions of the reference converter.

python tests/models/make_projectors.py REFERENCE CASE...
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import toys
from make_families import value

from streamconv.models import PROJECTORS
from streamconv.models.config import tower_architectures
from streamconv.sources.folder import SPEECH
from streamconv.sources.implied_config import implied_config
from streamconv.sources.mistral_params import read_params

#: keys that tell the folder's name
_FOLDER = {"clip.gen.audio.model_variant": "toy"}
_SIDE = ("preprocessor_config.json", "processor_config.json")


def toy_of(name: str, case: dict[str, Any]) -> dict[str, Any]:
    """A case as a toy: config.json, tensors of the projector, and the keys and tensors that the reference wrote."""
    files, output = case["files"], case["outputs"]["mmproj-f16"]
    config = read_params(files["params.json"], Path(name))[0] if "params.json" in files else files["config.json"]
    speech = [(f"{SPEECH}.{t[0]}", *t[1:]) for t in files.get(f"{SPEECH}/model.safetensors", ())]
    stored = [*case["tensors"], *speech]
    shapes = {t[0]: tuple(t[2]) for t in stored}
    config = config or implied_config({each: toys.Named(each, shape) for each, shape in shapes.items()})
    family = next(PROJECTORS[a] for a in tower_architectures(config) if a in PROJECTORS)
    found = {
        "name": name,
        "projector": True,
        "config": config,
        "side": {
            **{key: value for key, value in files.items() if key in _SIDE},
            "tokenizer_config.json": {"added_tokens_decoder": {"7": {"content": "[IMG_BREAK]"}}},
        },
        "tensors": toys.packed({t[0]: t[2] for t in sorted(map(tuple, stored)) if family.why_not(t[0]) is None}),
        "keys": {k: _FOLDER.get(k, value(v)) for k, v in output["kv"].items() if not k.startswith("general.")},
        "made": toys.packed({t[0]: t[1][::-1] for t in output["tensors"]}),
        "f16": toys.packed({t[0]: [] for t in output["tensors"] if t[2] == "F16"}),
    }
    return {**found, "digest": toys.digest(toys.built(found))}


if __name__ == "__main__":
    zoo = Path(sys.argv[1]) / "golden" / "zoo"
    lines = [toy_of(name, json.loads((zoo / f"{name}.json").read_text())) for name in sys.argv[2:]]
    toys.PROJECTORS.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines), "utf-8")
