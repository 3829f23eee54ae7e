"""dare_linear: task vectors thinned out by chance.

Source: Yu et al., Language models are super Mario, 2023, https://arxiv.org/abs/2311.03099
The factor of ``rescale`` keeps the sum of magnitudes exactly, where the paper divides by the density.
"""

from __future__ import annotations

from ._sparsify import by_chance
from ._task_vectors import task_vector_method

METHOD = task_vector_method(
    "dare_linear",
    "Linear DARE",
    "https://arxiv.org/abs/2311.03099",
    sparsify=by_chance,
    vote=False,
    normalize=False,
    rescale=True,
)
