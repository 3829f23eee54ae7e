"""What a mix has measured so far, in a small file beside the list, so that a run that is stopped goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..engine import files
from .curves import Loss

#: how the file begins
_START = b'{"inputs": "'


def state_path(path: Path) -> Path:
    """Where what was measured for the list ``path`` is kept meanwhile."""
    return path.with_name(f".{path.name}.measured")


class Kept:
    """The file ``path``; what other ``inputs`` gave is not taken up.

    Attributes
    ----------
    losses : by matrix and type
    delta, cost : by matrix, see ``sensitivity``; the latter is empty until all is measured
    """

    def __init__(self, path: Path, inputs: str) -> None:
        self._path, self._inputs = path, inputs
        self.delta: dict[str, float] = {}
        self.cost: dict[str, float] = {}
        self.losses: dict[str, dict[str, Loss]] = {}
        try:
            found: Any = json.loads(files.read_own(path) or b"{}")
            if found.get("inputs") == inputs:
                self.delta = {str(n): float(x) for n, x in found["delta"].items()}
                self.cost = {str(n): float(x) for n, x in found["cost"].items()}
                self.losses = {
                    str(n): {str(t): Loss(*map(float, x)) for t, x in each.items()}
                    for n, each in found["losses"].items()
                }
        except (ValueError, TypeError, KeyError, AttributeError):
            self.delta, self.cost, self.losses = {}, {}, {}  # a damaged file keeps nothing

    def keep_losses(self, losses: Mapping[str, Mapping[str, Loss]]) -> None:
        """Remember ``losses``."""
        self.losses = {n: dict(each) for n, each in losses.items()}
        self._write()

    def keep_delta(self, delta: Mapping[str, float]) -> None:
        """Remember ``delta``."""
        self.delta = dict(delta)
        self._write()

    def keep_cost(self, cost: Mapping[str, float]) -> None:
        """Remember ``cost``: nothing is left to be measured."""
        self.cost = dict(cost)
        self._write()

    def _write(self) -> None:
        facts = {
            "inputs": self._inputs, "delta": dict(sorted(self.delta.items())), "cost": dict(sorted(self.cost.items())),
            "losses": {n: {t: list(x) for t, x in sorted(each.items())} for n, each in sorted(self.losses.items())},
        }  # fmt: skip
        files.write_atomically(self._path, json.dumps(facts), mode=files.PRIVATE)


def forget_measured(path: Path) -> None:
    """Remove what was kept for the list ``path``, which is there; another file of that name stays."""
    state = state_path(path)
    data = files.read_own(state)
    if data is not None and data.startswith(_START):
        files.remove_file(state)
