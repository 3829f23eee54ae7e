"""passthrough: the tensor of the only input, times ``scale`` if given; for stacks of layers.

A tensor without a scale is not computed at all: the planner of the merge passes on its rows unchanged.
"""

from __future__ import annotations

from ..method import Method, Operator, Parameter, Task
from .linear import WeightedSum


def _bind(task: Task) -> Operator:
    scale = task.each[0]["scale"]
    return WeightedSum([1.0 if scale is None else scale])


METHOD = Method(
    name="passthrough",
    title="Passthrough",
    source="",
    parameters=(Parameter("scale", scope="input"),),
    bind=_bind,
    base="ordinary",
    most=1,
    alone="copy",
)
