"""Where config.json says what of RoPE: at its root, in ``rope_scaling``, in ``rope_parameters``; what differs is told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..sources.hf_config import flattened, section
from .config import ROPE_OF_ROOT, Config

_LOCAL = "sliding_attention"


def said_twice(config: Config) -> Iterator[str]:
    """Parameters of which config.json says two things, and which of them the output has."""
    raw = flattened(config.raw)
    for kind, taken in (("full_attention", config.rope), (_LOCAL, config.rope_local)):
        found: dict[str, list[Any]] = {}
        for place in _places(raw, kind):
            for key, value in place.items():
                name = "rope_type" if key == "type" else key
                is_other_name = name != key and place.get(name) is not None
                if value is None or isinstance(value, Mapping) or is_other_name:
                    continue
                if value not in found.setdefault(name, []):
                    found[name].append(value)
        for name, values in found.items():
            if len(values) > 1:
                which = f" of {kind} layers" if config.rope_local else ""
                yield (
                    f"{config.place} says {name} {' and '.join(map(str, values))}{which}: the output has"
                    f" {taken.get(name)}, as transformers reads it"
                )


def _places(raw: Mapping[str, Any], kind: str) -> Iterator[Mapping[str, Any]]:
    """What config.json says of the layers of a kind, place by place."""
    parameters = section(raw, "rope_parameters")
    if kind == _LOCAL:
        yield section(parameters, kind)
        yield {"rope_theta": raw.get("rope_local_base_freq")}
        return
    yield section(raw, "rope_scaling")
    yield section(parameters, kind) or parameters
    for key, names in ROPE_OF_ROOT.items():
        yield from ({key: raw.get(name)} for name in names)
