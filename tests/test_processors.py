"""The same bytes on every processor, and under every version that has the same ``KERNEL_ABI``."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import kernel_digests
import pytest

from streamconv.engine.plan import KERNEL_ABI

X86 = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="these are features of x86-64")
#: what numpy is told to do without
FEATURES = {
    "without AVX-512": "X86_V4 AVX512_ICL AVX512_SPR",
    "without AVX2": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR",
}
QUICK = ("planning", "quant", "sbs", "dequant", "merging", "changes")


def made_by(environment: dict[str, str], *groups: str) -> dict[str, str]:
    command = [sys.executable, "-W", "ignore", kernel_digests.__file__, *groups]
    done = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=1800, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, str] = json.loads(done.stdout)
    return found


def assert_recorded(found: dict[str, str]) -> None:
    known = kernel_digests.recorded()[str(KERNEL_ABI)]
    others = [name for name, digest in found.items() if known.get(name) != digest]
    assert not others, (
        f"bytes of {others[:3]} are not those of KERNEL_ABI {KERNEL_ABI}: raise it in engine/plan.py,"
        " then run python tests/kernel_digests.py --record"
    )


@pytest.mark.parametrize("group", [*QUICK, pytest.param("grids", marks=pytest.mark.slow)])
def test_bytes_are_those_that_are_recorded_for_the_kernel_abi(group: str) -> None:
    assert_recorded(kernel_digests.digests(group))


def test_other_bytes_are_recorded_only_under_another_kernel_abi(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = kernel_digests.recorded()
    monkeypatch.setattr(kernel_digests, "RECORDED", tmp_path / "digests.json")
    (tmp_path / "digests.json").write_text(json.dumps(known))
    changed = {**known[str(KERNEL_ABI)], "quant: Q4_K": "0" * 16}
    monkeypatch.setattr(kernel_digests, "digests", lambda *groups: changed)
    with pytest.raises(SystemExit, match="KERNEL_ABI is still"):
        kernel_digests.record()
    monkeypatch.setattr("streamconv.engine.plan.KERNEL_ABI", KERNEL_ABI + 1)
    kernel_digests.record()
    assert kernel_digests.recorded() == {**known, str(KERNEL_ABI + 1): changed}


@X86
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FEATURES)
def test_values_do_not_depend_on_what_numpy_finds(name: str) -> None:
    assert_recorded(made_by({"NPY_DISABLE_CPU_FEATURES": FEATURES[name]}, "planning", "changes"))


@X86
@pytest.mark.slow
@pytest.mark.parametrize("name", FEATURES)
def test_merges_and_blocks_do_not_depend_on_what_numpy_finds(name: str) -> None:
    assert_recorded(made_by({"NPY_DISABLE_CPU_FEATURES": FEATURES[name]}, *QUICK))


@X86
@pytest.mark.slow
def test_bytes_do_not_depend_on_the_processor_that_kernels_are_compiled_for(tmp_path: Path) -> None:
    plain = {
        "NUMBA_CPU_NAME": "generic",
        "NUMBA_CPU_FEATURES": "+sse,+sse2",
        "NUMBA_CACHE_DIR": str(tmp_path),
        "NPY_DISABLE_CPU_FEATURES": FEATURES["without AVX2"],
        "OPENBLAS_CORETYPE": "Nehalem",
    }
    assert_recorded(made_by(plain, *QUICK))
