"""The same bytes whatever the processor offers: the golden rows again, compiled for other instruction sets."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

#: what numba is told; this machine's own set is what the other tests run with
SETS = {
    "without AVX-512": {"NUMBA_CPU_NAME": "x86-64-v3", "NUMBA_CPU_FEATURES": ""},
    "without AVX2": {"NUMBA_CPU_NAME": "x86-64-v2", "NUMBA_CPU_FEATURES": ""},
}


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="these are sets of x86-64")
@pytest.mark.parametrize("name", SETS)
def test_golden_bytes_do_not_depend_on_the_instruction_set(name: str, tmp_path: Path) -> None:
    environment = os.environ | SETS[name] | {"NUMBA_CACHE_DIR": str(tmp_path)}
    tests = [
        str(Path(__file__).with_name(file)) for file in ("test_codecs.py", "test_small_codecs.py", "test_iq_types.py")
    ]
    probe = (
        "import numba, numpy as np\n"
        "@numba.njit\n"
        "def add(a, b):\n"
        "    for i in range(len(a)): a[i] += b[i]\n"
        "x = np.ones(1000, np.float32); add(x, x)\n"
        "print('zmm' in add.inspect_asm(add.signatures[0]), 'ymm' in add.inspect_asm(add.signatures[0]))"
    )
    asked = subprocess.run([sys.executable, "-c", probe], env=environment, capture_output=True, text=True, check=True)
    assert asked.stdout.split() == (["False", "True"] if name == "without AVX-512" else ["False", "False"])
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        *tests,
        "-k",
        "bytes_equal or whole_reference or bfloat16",
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
