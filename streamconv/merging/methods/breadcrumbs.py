"""breadcrumbs: task vectors without their largest and smallest elements.

Source: Davari, Belilovsky, Model breadcrumbs, 2023, https://arxiv.org/abs/2312.06795
"""

from __future__ import annotations

from ..method import Parameter
from ._sparsify import without_outliers
from ._task_vectors import task_vector_method

METHOD = task_vector_method(
    "breadcrumbs",
    "Breadcrumbs",
    "https://arxiv.org/abs/2312.06795",
    sparsify=without_outliers,
    vote=False,
    normalize=False,
    rescale=False,
    parameters=(Parameter("gamma", default=0.01, scope="other"),),
)
