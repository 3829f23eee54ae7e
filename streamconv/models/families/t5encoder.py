"""The encoder of T5 alone."""

from __future__ import annotations

from dataclasses import replace

from ...metadata import Metadata
from ..config import Config
from . import t5


def without_decoder(m: Metadata, a: str, c: Config) -> None:
    """No depth of what is not there."""
    for key in ("decoder_block_count", "decoder_start_token_id"):
        m.remove(f"{a}.{key}")


FAMILY = replace(
    t5.FAMILY,
    arch="t5encoder",
    architectures=("T5EncoderModel",),
    assumes={key: value for key, value in t5.FAMILY.assumes.items() if key != "scale_decoder_outputs"},
    idle=(*t5.FAMILY.idle, "scale_decoder_outputs"),
    keys=(*t5.FAMILY.keys, without_decoder),
)
