"""The same bytes whatever the processor offers: the golden rows again, compiled for other instruction sets."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from llvmlite.binding import get_host_cpu_features

from streamconv.kernels.lanes import WIDE

#: what numba is told, how wide vectors are that a kernel asks for, and the registers that come of it in code of others;
#: this machine's own set is what the other tests run with
SETS = {
    "without AVX-512": ("x86-64-v3", "", WIDE, "ymm"),
    "without AVX2": ("x86-64-v2", "", WIDE, "xmm"),
    "AVX-512, half of it": ("x86-64-v4", "", 256, "ymm"),
    "AVX-512, where kernels ask for it": ("x86-64-v4", "", WIDE, "ymm"),
    "AVX-512, all of it": ("x86-64-v4", "-prefer-256-bit", WIDE, "zmm"),
}
#: what this processor must have
NEEDED = {"x86-64-v4": "avx512vl", "x86-64-v3": "avx2", "x86-64-v2": "sse4.2"}

PROBE = """
import sys, numba, numpy as np
from streamconv.kernels import lanes
def add(a, b):
    for i in range(len(a)): a[i] += b[i]
x, found = np.ones(1000, np.float32), []
for compiled in (numba.njit(add), lanes.kernel(add, vector_bits=int(sys.argv[1]))):
    compiled(x, x)
    assembly = compiled.inspect_asm(compiled.signatures[0])
    found.append(next(name for name in ("zmm", "ymm", "xmm") if name in assembly))
print(*found)
"""

RUN = """
import sys, pytest
from streamconv.kernels import lanes
lanes.WIDE = int(sys.argv[1])  # before any format is imported
sys.exit(pytest.main(sys.argv[2:]))
"""


def environment(name: str, folder: Path) -> dict[str, str]:
    cpu, features, _, _ = SETS[name]
    return os.environ | {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": features, "NUMBA_CACHE_DIR": str(folder)}


needs = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="these are sets of x86-64")


def skip_without(name: str) -> None:
    if not get_host_cpu_features().get(NEEDED[SETS[name][0]]):
        pytest.skip("this processor has no such registers")


@needs
@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_a_kernel_has_the_vectors_that_it_asks_for_and_other_code_those_that_llvm_prefers(
    name: str, tmp_path: Path
) -> None:
    skip_without(name)
    cpu, _, bits, others = SETS[name]
    own = {256: "ymm", 512: "zmm"}[bits] if cpu == "x86-64-v4" else others
    probe = tmp_path / "probe.py"
    probe.write_text(PROBE)
    command = [sys.executable, str(probe), str(bits)]
    asked = subprocess.run(command, env=environment(name, tmp_path), capture_output=True, text=True, check=True)
    assert asked.stdout.split() == [others, own]


@needs
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.soak if "AVX-512," in n else pytest.mark.slow) for n in SETS]
)
def test_golden_bytes_do_not_depend_on_the_instruction_set(name: str, tmp_path: Path) -> None:
    skip_without(name)
    tests = [
        str(Path(__file__).with_name(file)) for file in ("test_codecs.py", "test_small_codecs.py", "test_iq_types.py")
    ]
    chosen = ["-q", "-p", "no:cacheprovider", *tests, "-k", "bytes_equal or whole_reference or bfloat16"]
    command = [sys.executable, "-c", RUN, str(SETS[name][2]), *chosen]
    done = subprocess.run(
        command, env=environment(name, tmp_path), capture_output=True, text=True, timeout=1800, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
