"""Pages for people: what a conversion made, how far models are from a reference, which mix was chosen.

A page is one text of HTML with its styles and its plots (SVG) in it: it loads nothing, runs no script, and opens from a disk. Its
numbers are given as plain data (``facts``); equal facts make equal pages.
"""

from .compared import compared_page
from .converted import converted_page
from .facts import Candidate, Compared, Converted, Mixed, MixedTensor, Output, Tensor
from .mixed import mixed_page
from .page import START, is_page

__all__ = [
    "START",
    "Candidate",
    "Compared",
    "Converted",
    "Mixed",
    "MixedTensor",
    "Output",
    "Tensor",
    "compared_page",
    "converted_page",
    "is_page",
    "mixed_page",
]
