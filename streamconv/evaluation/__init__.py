"""Runs models over a text: importance matrices, perplexity, and how far one model is from another.

    text ─ tokens ─ chunks ──► embed ─► layer 0 ─► … ─► layer n - 1 ─► head
                                  └── states, two files by turns ──┘
    imatrix      squares of what every matrix is given, a range of the output for each layer: a job as that of a conversion
    perplexity   what the head says of the right tokens; kept in a job folder, if one is named, until it has been told
    compare      the same of several models, and the divergence from the first

The text goes through one layer after the other (``forward``), so weights are read once and memory does not grow with the model.
"""

from .adding import open_sums, prepare_sum, write_sum
from .comparing import Compared, compare
from .matrix import Measured, prepare_imatrix, write_imatrix
from .pages import write_page
from .request import Request

__all__ = [
    "Compared",
    "Measured",
    "Request",
    "compare",
    "open_sums",
    "prepare_imatrix",
    "prepare_sum",
    "write_imatrix",
    "write_page",
    "write_sum",
]
