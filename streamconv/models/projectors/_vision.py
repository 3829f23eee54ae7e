"""What the projector files of vision towers have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import BadInput, InputMissing
from ...metadata import Metadata
from ..config import Config


def vision_section(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """``vision_config`` of config.json (BadInput where there is none)."""
    found = raw.get("vision_config")
    if not isinstance(found, Mapping):
        raise BadInput("config.json has no 'vision_config', so there is no projector to write")
    return found


def require(c: Config, *names: str) -> None:
    """BadInput where the checkpoint has no tensor with one of these endings; the table of loaders is of text models."""
    found = c.checkpoint.tensors if c.checkpoint is not None else ()
    for name in names:
        if not any(each.endswith(name) for each in found):
            raise BadInput(f"{c.folder}: the projector has no tensor {name!r}", "Is this the whole checkpoint?")


def sizes(m: Metadata, c: Config) -> None:
    """Sizes of the tower, in the order of the reference."""
    m.u32("clip.vision.image_size", c.integer("image_size"))
    m.u32("clip.vision.patch_size", c.integer("patch_size"))
    m.u32("clip.vision.embedding_length", c.hidden)
    m.u32("clip.vision.feed_forward_length", c.integer("intermediate_size"))
    m.u32("clip.vision.block_count", c.n_layers)
    m.u32("clip.vision.attention.head_count", c.n_heads)


def image_statistics(m: Metadata, c: Config) -> None:
    """Mean and deviation of pixels, from the image processor's file.

    Raises
    ------
    InputMissing : there is none
    BadInput : it does not say them
    """
    processor = c.side("preprocessor_config.json")
    if processor is None:
        nested = (c.side("processor_config.json") or {}).get("image_processor")
        processor = nested if isinstance(nested, dict) else None
    if processor is None:
        raise InputMissing(
            f"{c.folder} has neither preprocessor_config.json nor processor_config.json",
            "Copy it from the model's page; the projector needs its image_mean and image_std.",
        )
    for key in ("image_mean", "image_std"):
        values = processor.get(key)
        if not isinstance(values, list) or len(values) != 3:
            raise BadInput(f"{c.folder}: the image processor has no {key!r} of three numbers")
        m.array(f"clip.vision.{key}", "FLOAT32", values)
