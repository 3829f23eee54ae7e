"""The projector files that go beside a text model, one file each: a module here that ends in ``FAMILY = Family(...)`` is one."""

from __future__ import annotations

from ..found import Families

#: Hugging Face architecture -> projector
PROJECTORS = Families(__name__, __path__)
