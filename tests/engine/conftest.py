"""What tests of whole jobs compare with."""

from __future__ import annotations

from pathlib import Path

import pytest
from toy_jobs import go, make_plan, toys


@pytest.fixture
def expected(tmp_path: Path) -> bytes:
    folder = tmp_path / "expected"
    folder.mkdir()
    go(make_plan(folder, toys()))
    return (folder / "out.bin").read_bytes()
