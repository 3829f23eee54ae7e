"""Types of tensors that make a file of a given size, chosen from measured errors.

    planned output ─ pool of matrices, candidates ─► curves: what each type loses of each matrix
                                                  ─► sensitivity: what a loss there costs in the end (KL divergence)
                                     cost of each type ─► solver ─► mix ─ compared with the best standard mix ─► list

The list is a ``--tensor-type-file``, so the conversion is an ordinary one and does not depend on anything measured.
"""

from .listing import Listed, prepare_list, read_list, told, verdict, write_list
from .mixing import forget_measured, make_mix
from .page import refuse_report, require_page, require_page_name, write_page
from .planning import MixRequest, PlannedMix, prepare_mix
from .result import Mix, MixSide, MixTensor, as_json

__all__ = [
    "Listed",
    "Mix",
    "MixRequest",
    "MixSide",
    "MixTensor",
    "PlannedMix",
    "as_json",
    "forget_measured",
    "make_mix",
    "prepare_list",
    "prepare_mix",
    "read_list",
    "refuse_report",
    "require_page",
    "require_page_name",
    "told",
    "verdict",
    "write_list",
    "write_page",
]
