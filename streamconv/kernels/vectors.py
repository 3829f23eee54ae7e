"""What differs from numba's own compiler: how wide the vectors of a kernel are, and that helpers become no code by themselves.

LLVM's tuning for server processors of Intel and for x86-64-v4 prefers 256 bits where 512 are there; for those of AMD it does not.
Processor features say otherwise for all code of a process, other users' of numba too. A function of LLVM can say it for itself,
with an attribute that numba has no option for; hence a compiler of our own, which differs in that from numba's. A processor
without so wide vectors takes the widest that it has, and bytes do not depend on the width (see ``lanes``).

A helper is optimized on its own before it disappears into kernels. numba makes machine code of it, too, which is never run and
took a tenth to a fifth of the time that a type takes to compile.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from numba.core import codegen, compiler_machinery, lowering, typed_passes
from numba.core import compiler as stages

#: numba has no annotations
_stages: Any = stages
_machinery: Any = compiler_machinery
_lowering: Any = lowering
_passes: Any = typed_passes
_Library: Any = codegen.JITCodeLibrary


class _Helper(_Library):  # type: ignore[misc]
    """What LLVM holds of a function that is only ever linked into others; its own ``codegen``, too, for the sake of ``set_env``."""

    optimized = True

    @property
    def codegen(self) -> Any:
        """Where numba announces the environment of compiled code."""
        return self

    def set_env(self, name: str, environment: Any) -> None:
        """There is no code that could ask for one."""

    def get_pointer_to_function(self, name: str) -> int:
        """None, as numba has it of functions without a wrapper; what is linked into others is complete from here on."""
        self._ensure_finalized()
        return 0

    def _optimize_final_module(self) -> None:
        if self.optimized:
            super()._optimize_final_module()

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._verify_declare_only_symbols()
        self._finalized = True


@cache
def compiler(bits: int | None, is_helper: bool = False, optimized: bool = True) -> Any:
    """A ``pipeline_class`` for ``njit``.

    Parameters
    ----------
    bits : how wide vectors its functions prefer; None for what LLVM thinks best
    is_helper : make no machine code: they are called by other compiled functions alone
    optimized : whether helpers are optimized before they are linked into others
    """

    class Lowered(_lowering.Lower):  # type: ignore[misc]
        def setup_function(self, fndesc: Any) -> None:
            super().setup_function(fndesc)
            if bits is not None:
                # its own ``add`` knows only attributes without a value
                set.add(self.function.attributes, f'"prefer-vector-width"="{bits}"')

    @_machinery.register_pass(mutates_CFG=True, analysis_only=False)
    class Lowering(_passes.NativeLowering):  # type: ignore[misc]
        _name = f"native_lowering_{bits}_{is_helper}_{optimized}"

        @property
        def lowering_class(self) -> Any:
            return Lowered

        def run_pass(self, state: Any) -> Any:
            if is_helper:
                state.library = _Helper(state.targetctx.codegen(), state.func_id.func_qualname)
                state.library.optimized = optimized
            return super().run_pass(state)

    class Compiler(_stages.CompilerBase):  # type: ignore[misc]
        def define_pipelines(self) -> list[Any]:
            steps = _stages.DefaultPassBuilder.define_nopython_pipeline(self.state)
            steps.passes = [(Lowering if step is _passes.NativeLowering else step, why) for step, why in steps.passes]
            steps.finalize()
            return [steps]

    return Compiler
