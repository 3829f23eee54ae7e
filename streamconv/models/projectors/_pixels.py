"""How many pixels an image may have, as projectors of images of any size say it."""

from __future__ import annotations

from ...errors import BadInput
from ...metadata import Metadata
from ..config import Config
from ._vision import processor


def pixels(c: Config, which: str) -> int:
    """``min_pixels`` or ``max_pixels`` of the image processor (BadInput where it does not say them)."""
    said = processor(c).get(f"{which}_pixels")
    if isinstance(said, bool) or not isinstance(said, int) or said <= 0:
        raise BadInput(f"{c.folder}: the image processor's '{which}_pixels' is {said!r}, not a number of pixels")
    return said


def limits(m: Metadata, least: int, most: int) -> None:
    """The least and the most pixels of an image."""
    m.u32("clip.vision.image_min_pixels", least)
    m.u32("clip.vision.image_max_pixels", most)


def pixel_limits(m: Metadata, _arch: str, c: Config) -> None:
    """The same, as the image processor says them."""
    limits(m, pixels(c, "min"), pixels(c, "max"))
