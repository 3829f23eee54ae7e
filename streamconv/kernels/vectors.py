"""How wide the vectors of a kernel are, decided for that kernel alone.

LLVM's tuning for server processors of Intel and for x86-64-v4 prefers 256 bits where 512 are there; for those of AMD it does not.
Processor features say otherwise for all code of a process, other users' of numba too. A function of LLVM can say it for itself,
with an attribute that numba has no option for; hence a compiler of our own, which differs in that from numba's. A processor
without so wide vectors takes the widest that it has, and bytes do not depend on the width (see ``lanes``).
"""

from __future__ import annotations

from functools import cache
from typing import Any

from numba.core import compiler as stages
from numba.core import compiler_machinery, lowering, typed_passes

#: numba has no annotations
_stages: Any = stages
_machinery: Any = compiler_machinery
_lowering: Any = lowering
_passes: Any = typed_passes


@cache
def compiler(bits: int) -> Any:
    """A ``pipeline_class`` for ``njit``, whose functions prefer vectors of ``bits``."""

    class Lowered(_lowering.Lower):  # type: ignore[misc]
        def setup_function(self, fndesc: Any) -> None:
            super().setup_function(fndesc)
            # its own ``add`` knows only attributes without a value
            set.add(self.function.attributes, f'"prefer-vector-width"="{bits}"')

    @_machinery.register_pass(mutates_CFG=True, analysis_only=False)
    class Lowering(_passes.NativeLowering):  # type: ignore[misc]
        _name = f"native_lowering_{bits}"

        @property
        def lowering_class(self) -> Any:
            return Lowered

    class Compiler(_stages.CompilerBase):  # type: ignore[misc]
        def define_pipelines(self) -> list[Any]:
            steps = _stages.DefaultPassBuilder.define_nopython_pipeline(self.state)
            steps.passes = [(Lowering if step is _passes.NativeLowering else step, why) for step, why in steps.passes]
            steps.finalize()
            return [steps]

    return Compiler
