"""task_arithmetic: the base plus a weighted sum of differences to it.

Source: Ilharco et al., Editing models with task arithmetic, 2022, https://arxiv.org/abs/2212.04089
"""

from __future__ import annotations

from ._task_vectors import task_vector_method

METHOD = task_vector_method(
    "task_arithmetic",
    "Task Arithmetic",
    "https://arxiv.org/abs/2212.04089",
    sparsify=None,
    vote=False,
    normalize=False,
    rescale=False,
)
