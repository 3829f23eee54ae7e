"""Helpers of kernels: linked into what calls them, never machine code of their own."""

from __future__ import annotations

import numpy as np
import pytest
from numba import config
from numba.core import codegen

from streamconv.kernels.lanes import WIDE, inline, kernel

if config.DISABLE_JIT:
    pytest.skip("nothing is compiled", allow_module_level=True)


@pytest.mark.parametrize("bits", [None, WIDE])
def test_only_the_kernel_becomes_machine_code(bits: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    @inline
    def _doubled(v):  # type: ignore[no-untyped-def]
        return v + v

    @inline(vector_bits=bits)
    def _tripled(v):  # type: ignore[no-untyped-def]
        return _doubled(v) + v

    @kernel(vector_bits=bits)
    def _all_tripled(x):  # type: ignore[no-untyped-def]
        """x : float32[n], changed in place."""
        for k in range(len(x)):
            x[k] = _tripled(x[k])

    added: list[str] = []
    add = codegen.JITCPUCodegen._add_module
    monkeypatch.setattr(
        codegen.JITCPUCodegen, "_add_module", lambda self, module: (added.append(module.name), add(self, module))[1]
    )
    x = np.arange(100, dtype=np.float32)
    _all_tripled(x)
    assert x.tolist() == [3.0 * k for k in range(100)]
    assert _tripled(np.float32(1.5)) == 4.5
    assert any("_all_tripled" in name for name in added)
    assert not [name for name in added if "_doubled" in name or "_tripled" in name.replace("_all_tripled", "")]
