"""ram: changes that several models made are averaged, those of one model are kept whole.

Source: Yuan et al., Behavior knowledge merge in reinforced agentic models, 2026, https://arxiv.org/abs/2601.13572
"""

from __future__ import annotations

from ..method import Method, Parameter
from ._reinforced import Reinforced

METHOD = Method(
    name="ram",
    title="Reinforced Agent Merging",
    source="https://arxiv.org/abs/2601.13572",
    parameters=(Parameter("epsilon", default=1e-5),),
    bind=Reinforced,
    least=0,
)
