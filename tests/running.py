"""Commands that tests run, in their own process or another, and how they ended."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest


@dataclass(frozen=True)
class Result:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str

    def __post_init__(self) -> None:
        assert "Traceback" not in self.err, self.err

    @property
    def events(self) -> list[dict[str, Any]]:
        """stdout as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


#: takes the words of a command
Run = Callable[..., Result]


def in_this_process(capfd: pytest.CaptureFixture[str]) -> Run:
    """Function that runs a command here, which is faster than in a process of its own."""

    def call(*args: object) -> Result:
        from streamconv.cli import main

        capfd.readouterr()
        code = main([str(a) for a in args])
        return Result(code, *capfd.readouterr())

    return call
