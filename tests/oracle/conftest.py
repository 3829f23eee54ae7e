"""Asking real llama.cpp."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Ask = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="session")
def llama(peers: Path) -> Iterator[Ask]:
    """Function that gives the answers of ``llama_peer.py`` to questions, in order; one process answers all of a session."""
    peer = subprocess.Popen(
        [str(peers), str(Path(__file__).with_name("llama_peer.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"GGML_NO_BACKTRACE": "1"},
        text=True,
    )
    assert peer.stdin is not None
    assert peer.stdout is not None
    asked, answers = peer.stdin, peer.stdout

    def ask(*questions: dict[str, Any]) -> list[dict[str, Any]]:
        asked.writelines(json.dumps(question) + "\n" for question in questions)
        asked.flush()
        return [json.loads(answers.readline()) for _ in questions]

    yield ask
    asked.close()
    answers.close()
    assert peer.wait(60) == 0
