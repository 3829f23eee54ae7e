"""Asking real llama.cpp."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Ask = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="session")
def llama(peers: Path) -> Ask:
    """Function that gives the answers of ``llama_peer.py`` to questions, in order."""

    def ask(*questions: dict[str, Any]) -> list[dict[str, Any]]:
        done = subprocess.run(
            [str(peers), str(Path(__file__).with_name("llama_peer.py"))],
            input="\n".join(json.dumps(q) for q in questions),
            env=os.environ | {"GGML_NO_BACKTRACE": "1"},
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
        )
        return [json.loads(line) for line in done.stdout.splitlines()]

    return ask
