"""Types of tensors that make a file of a given size, chosen from measured errors.

    planned output ─ pool of matrices, candidates ─► curves: what each type loses of each matrix
                                                  ─► sensitivity: what a loss there costs in the end (KL divergence)
                                     cost of each type ─► solver ─► mix ─ compared with the best standard mix ─► list

The list is a ``--tensor-type-file``, so the conversion is an ordinary one and does not depend on anything measured.
"""

from .listing import Listed, told, verdict
from .making import make_list
from .page import require_page_name
from .planning import MixRequest
from .result import Mix, MixSide, MixTensor, as_json

__all__ = [
    "Listed",
    "Mix",
    "MixRequest",
    "MixSide",
    "MixTensor",
    "as_json",
    "make_list",
    "require_page_name",
    "told",
    "verdict",
]
