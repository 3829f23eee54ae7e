"""ties: task vectors trimmed to their largest elements, with a vote on the sign.

Source: Yadav et al., TIES-Merging, 2023, https://arxiv.org/abs/2306.01708
Of elements of equal magnitude at the threshold the first ones are kept, so that exactly the share asked for is.
"""

from __future__ import annotations

from ._sparsify import by_magnitude
from ._task_vectors import task_vector_method

METHOD = task_vector_method(
    "ties",
    "TIES",
    "https://arxiv.org/abs/2306.01708",
    sparsify=by_magnitude,
    vote=True,
    normalize=True,
    rescale=False,
)
