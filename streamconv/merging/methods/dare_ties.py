"""dare_ties: task vectors thinned out by chance; a vote on the sign.

Source: Yu et al., Language models are super Mario, 2023, https://arxiv.org/abs/2311.03099
The factor of ``rescale`` keeps the sum of magnitudes exactly, where the paper divides by the density.
"""

from __future__ import annotations

from ._sparsify import by_chance
from ._task_vectors import task_vector_method

METHOD = task_vector_method(
    "dare_ties",
    "DARE TIES",
    "https://arxiv.org/abs/2311.03099",
    sparsify=by_chance,
    vote=True,
    normalize=False,
    rescale=True,
)
