"""della: task vectors thinned out by chance, large elements less than small ones; a vote on the sign.

Source: Deep, Bhardwaj, Poria, DELLA-Merging, 2024, https://arxiv.org/abs/2406.11617
Elements are ranked within their row.
"""

from __future__ import annotations

from ..method import Parameter
from ._sparsify import by_rank_and_chance
from ._task_vectors import task_vector_method

METHOD = task_vector_method(
    "della",
    "DELLA",
    "https://arxiv.org/abs/2406.11617",
    sparsify=by_rank_and_chance,
    vote=True,
    normalize=True,
    rescale=True,
    parameters=(Parameter("epsilon", default=0.15, scope="other"),),
)
