"""The projector files that go beside a text model, one file each: a module here that ends in ``FAMILY = Family(...)`` is one."""

from __future__ import annotations

from ...found import Found
from ..family import Family

#: keys of a GGUF file that say which projectors are in it
PROJECTOR_TYPES = ("clip.projector_type", "clip.vision.projector_type", "clip.audio.projector_type")
#: Hugging Face architecture -> projector
PROJECTORS = Found(__name__, __path__, Family, lambda family: family.architectures)
