"""The model families, one file each: a module here that ends in ``FAMILY = Family(...)`` is a family."""

from __future__ import annotations

from ..found import Families

#: Hugging Face architecture -> family
FAMILIES = Families(__name__, __path__)
