"""Input files damaged at random: only our errors, no crash, no hang, bounded memory. See ``fuzzing``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fuzzing import KINDS

QUICK = 100
ALL = 15_000


def survived(kind: str, first: int, count: int) -> dict[str, Any]:
    """What ``count`` cases in a process of their own came to; fails with the case that it died of."""
    script = Path(__file__).with_name("fuzzing.py")
    command = [sys.executable, str(script), kind, str(first), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    last = done.stderr.split("\r")[-2] if "\r" in done.stderr else "?"
    assert done.returncode == 0, f"{kind} died with {done.returncode} at case {last}: {done.stderr[-2000:]}"
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["wrong"] == []
    assert found["accepted"] + found["refused"] == count
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_some_damaged_files_are_survived(kind: str) -> None:
    found = survived(kind, 0, QUICK)
    # Both happen, or the damage is not what it should be.
    assert found["accepted"] > QUICK // 100
    assert found["refused"] > QUICK // 4


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
def test_many_damaged_files_are_survived(kind: str, record_property: Any) -> None:
    found = survived(kind, QUICK, ALL)
    record_property("counts", found)
