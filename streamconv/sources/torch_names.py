"""From what a torch pickle holds to tensors with the names that a model's modules give them.

A checkpoint is a dictionary of tensors, or such a dictionary somewhere inside another one: training programs put the weights
under ``state_dict`` or ``model`` beside the optimizer's state, wrappers put ``module.`` before every name. Nested names are
joined with dots; what all names have in front because of such a wrapper is taken off.
"""

from __future__ import annotations

from typing import Any

from ..errors import BadInput
from .naming import shown, shown_list
from .torch_globals import Tensor

#: containers in containers; real files have three or four
_MAX_DEPTH = 32
_MAX_NAME_CHARACTERS = 4096
_MAX_ALL_CHARACTERS = 8 << 20
#: of a training run, beside the weights
_NOT_WEIGHTS = frozenset({
    "optimizer", "optimizers", "optimizer_state", "optimizer_states", "optimizer_state_dict", "optim", "optim_state",
    "lr_scheduler", "lr_schedulers", "lr_scheduler_state_dict", "scheduler", "scheduler_state_dict", "scaler", "amp",
    "grad_scaler", "rng_state", "random_rng_state", "torch_rng_state", "cuda_rng_state", "loops", "callbacks",
})  # fmt: skip
#: taken off wherever all names begin with it
_WRAPPERS = ("state_dict", "model_state_dict", "module", "_orig_mod")


def named_tensors(root: Any, where: str, warnings: list[str]) -> dict[str, Tensor]:
    """All tensors in ``root`` by name, in the order of the names; ``warnings`` takes what was left out.

    Errors: BadInput where there is no tensor, two have one name, or containers hold each other.
    """
    if isinstance(root, dict):
        skipped = {key for key in root if isinstance(key, str) and key.lower() in _NOT_WEIGHTS}
        left_out = _Collector(where).collect({key: root[key] for key in skipped})
        # Only what holds tensors is worth a word.
        if left_out:
            warnings.append(f"{where}: left out what is not weights: {shown_list({n.split('.')[0] for n in left_out})}")
        root = {key: value for key, value in root.items() if key not in skipped}
    found = _Collector(where).collect(root)
    if not found:
        raise BadInput(f"{where} holds no tensors")
    found = _unwrapped(found)
    return {name: found[name] for name in sorted(found)}


class _Collector:
    """Walks through containers and gathers tensors."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._found: dict[str, Tensor] = {}
        self._characters = _MAX_ALL_CHARACTERS
        # By identity: whether the container holds tensors; None while it is being walked through.
        self._seen: dict[int, bool | None] = {}

    def collect(self, root: Any) -> dict[str, Tensor]:
        if isinstance(root, Tensor):
            raise BadInput(f"{self._where} holds one tensor without a name")
        self._walk(root, "", 0)
        return self._found

    def _walk(self, value: Any, name: str, depth: int) -> bool:
        """Gather the tensors in ``value``; whether there are any."""
        if isinstance(value, Tensor):
            self._add(name, value)
            return True
        if not isinstance(value, (dict, list, tuple)) or not value:
            return False
        if depth > _MAX_DEPTH:
            raise BadInput(f"{self._where}: containers under {shown(name)} nest deeper than {_MAX_DEPTH}")
        before = self._seen.get(id(value), False)
        if before is not False:
            # A few bytes of pickle can share a container so often that walking it would never end.
            raise BadInput(f"{self._where}: {shown(name)} is a container that is also somewhere else, or in itself")
        if id(value) in self._seen:
            return False
        self._seen[id(value)] = None
        items = value.items() if isinstance(value, dict) else enumerate(value)
        prefix = f"{name}." if name else ""
        has_tensors = False
        for key, item in items:
            if isinstance(item, (Tensor, dict, list, tuple)):
                self._count(len(prefix) + 16 + (len(key) if isinstance(key, str) else 0))
                has_tensors |= self._walk(item, f"{prefix}{key}", depth + 1)
        self._seen[id(value)] = has_tensors
        return has_tensors

    def _count(self, characters: int) -> None:
        self._characters -= characters
        if characters > _MAX_NAME_CHARACTERS or self._characters < 0:
            raise BadInput(f"{self._where}: names are longer than any model has them")

    def _add(self, name: str, tensor: Tensor) -> None:
        if name in self._found:
            raise BadInput(f"{self._where}: two tensors have the name {shown(name)} (second at byte {tensor.at})")
        self._found[name] = tensor


def _unwrapped(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors without the wrappers' part of their names.

    ``model`` is the name of a module in most models. It is a wrapper only where names repeat it, or where the output layer,
    which is never inside that module, is below it.
    """
    while True:
        firsts = {name.partition(".")[0] for name in found}
        if len(firsts) != 1 or not all("." in name for name in found):
            return found
        (first,) = firsts
        if first not in _WRAPPERS:
            inside = {name.split(".", 2)[1] for name in found}
            if first != "model" or not inside & {"model", "lm_head"}:
                return found
        found = {name.partition(".")[2]: tensor for name, tensor in found.items()}
