"""What a plan is made from: enough for another process, on another machine, to make the same one."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from .options import Options


@dataclass(frozen=True)
class Recipe:
    """The inputs of ``prepare``, or of ``prepare_adapter`` where there is an ``extraction``.

    Attributes
    ----------
    sources, output : as the user named them; relative names are meant from ``folder``, which workers are told
    extraction : what ``prepare_adapter`` is told, JSON-able
    """

    sources: tuple[str, ...]
    output: str
    options: Options
    extraction: Mapping[str, Any] = field(default_factory=dict)
    folder: str = ""

    def for_workers(self, **changes: Any) -> Recipe:
        """The recipe without what is the coordinator's only; ``changes`` are options that are others for workers."""
        options = replace(
            self.options, report=None, cluster=None, cluster_tls=None, stop_after_s=None, refresh=False, reuse=(),
            no_reuse=False, manifest=False, **changes,
        )  # fmt: skip
        return replace(self, options=options, folder=os.getcwd())

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        told = {f.name: _plain(getattr(self.options, f.name)) for f in fields(self.options) if f.name != "own"}
        return {
            "sources": list(self.sources), "output": self.output, "options": {**told, **_plain(self.options.own)},
            "extraction": dict(self.extraction), "folder": self.folder,
        }  # fmt: skip

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Recipe:
        """What ``to_json`` gave."""
        return cls(
            tuple(told["sources"]), told["output"], Options.of(told["options"]), told["extraction"], told["folder"]
        )


def _plain(value: Any) -> Any:
    """``value`` as JSON has it."""
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, Path) else json.loads(json.dumps(value))
