"""The projector files that go beside a text model, one file each: a module here that ends in ``FAMILY = Family(...)`` is one."""

from __future__ import annotations

from ...found import Found
from ..family import Family

#: Hugging Face architecture -> projector
PROJECTORS = Found(__name__, __path__, Family, lambda family: family.architectures)
