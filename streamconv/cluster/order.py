"""What a worker is told of the job, and what must be the same on both ends. JSON, so nothing is run to read it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, NamedTuple

from ..conversion import Prepared, Recipe
from ..conversion.report_page import is_page_name
from ..engine.attaching import Token
from ..engine.plan import KERNEL_ABI, Plan
from ..errors import PlanDiffers

#: packages that have a part in the bytes of kernels
_PACKAGES = ("streamconv", "numba", "llvmlite", "numpy")


def versions() -> dict[str, str]:
    """What decides here which bytes a kernel makes."""
    return {**{name: version(name) for name in _PACKAGES}, "kernels": str(KERNEL_ABI), "byte order": sys.byteorder}


def refuse_other_versions(wanted: Mapping[str, str]) -> None:
    """PlanDiffers where this process has other versions than the ``wanted`` ones, of the coordinator."""
    here = versions()
    other = [
        f"{what} {here[what]} instead of {wanted.get(what, 'none')}" for what in here if wanted.get(what) != here[what]
    ]
    if other:
        raise PlanDiffers(
            f"it could make other bytes: it has {'; '.join(other)}",
            "Install the same versions in the environment of all workers (pip freeze, or one container image).",
        )


class Order(NamedTuple):
    """A job that workers work for.

    Attributes
    ----------
    versions : of the coordinator
    recipe : what the plan is made from
    token : of the run
    inputs : name, size, time of the last change and digest of every input, as the coordinator sees them
    """

    versions: Mapping[str, str]
    recipe: Recipe
    token: Token
    inputs: list[list[Any]]

    @classmethod
    def of(cls, prepared: Prepared, token: Token, **changes: Any) -> Order:
        """The order for what is ``prepared``; ``changes`` are options that are others for workers."""
        assert prepared.recipe is not None
        told = prepared.recipe.options
        changes["measure"] = told.measure or (told.report is not None and not is_page_name(told.report))
        if prepared.hub is not None:
            changes["offline"] = True
        return cls(versions(), prepared.recipe.for_workers(**changes), token, inputs_of(prepared.plan))

    def text(self) -> str:
        """As it travels."""
        salt, nonce, fingerprint = self.token
        return json.dumps(
            {
                "versions": dict(self.versions), "recipe": self.recipe.to_json(), "inputs": self.inputs,
                "token": [salt, nonce, fingerprint.hex()],
            }
        )  # fmt: skip

    @classmethod
    def read(cls, text: str) -> Order:
        """What ``text`` gave."""
        told = json.loads(text)
        salt, nonce, fingerprint = told["token"]
        return cls(
            told["versions"], Recipe.of(told["recipe"]), Token(salt, nonce, bytes.fromhex(fingerprint)), told["inputs"]
        )


def inputs_of(plan: Plan) -> list[list[Any]]:
    """The inputs of ``plan`` by what is the same on every machine that sees them."""
    return [[i["name"], i["size"], i["mtime_ns"], i["digest"]] for i in plan.inputs]
