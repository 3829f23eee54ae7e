"""ramplus_tl: as ram, with the changes of one model alone amplified by how much of its changes others share.

Source: Yuan et al., Behavior knowledge merge in reinforced agentic models, 2026, https://arxiv.org/abs/2601.13572
"""

from __future__ import annotations

from ..method import Method, Operator, Parameter, Task
from ._reinforced import Reinforced


def _bind(task: Task) -> Operator:
    return Reinforced(task, task.shared["r"], task.shared["alpha"])


METHOD = Method(
    name="ramplus_tl",
    title="Reinforced Agent Merging Plus",
    source="https://arxiv.org/abs/2601.13572",
    parameters=(Parameter("epsilon", default=1e-5), Parameter("r", default=0.1), Parameter("alpha", default=0.2)),
    bind=_bind,
    least=0,
)
