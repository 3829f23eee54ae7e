"""The model families, one file each: a module here that ends in ``FAMILY = Family(...)`` is a family."""

from __future__ import annotations

from ...found import Found
from ..family import Family

#: Hugging Face architecture -> family
FAMILIES = Found(__name__, __path__, Family, lambda family: family.architectures)
