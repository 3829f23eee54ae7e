"""Ultravox: Whisper's encoder, whose frames are stacked and projected into a text model that is kept elsewhere."""

from __future__ import annotations

from ...metadata import Metadata
from ..assumed import Assumed
from ..config import Config
from ._audio import of_root, stacked, whisper
from ._vision import require


def complete(_m: Metadata, _arch: str, c: Config) -> None:
    """Runtimes norm in the middle of the projection, so BadInput where the norm is elsewhere, as in old models."""
    require(c, "multi_modal_projector.ln_mid.weight", "multi_modal_projector.ln_pre.weight")


FAMILY = whisper(
    "ultravox",
    ("UltravoxModel",),
    stacked(lambda c: c.raw.get("stack_factor", 8)),
    complete,
    of_root(projector_act=Assumed(("swiglu",)), projector_ln_mid=Assumed((True,))),
)
