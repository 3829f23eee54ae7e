"""Model references: ``path[@revision][+adapter[@revision]]``, or the same as a mapping."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import BadInput
from .keys import check_keys


@dataclass(frozen=True)
class ModelRef:
    """A model, possibly with an adapter on top.

    Attributes
    ----------
    path, revision : where it is; a local path or a hub id
    adapter, adapter_revision : the LoRA adapter, or None
    architecture : taken in place of ``architectures`` in its config.json
    """

    path: str
    revision: str | None = None
    adapter: str | None = None
    adapter_revision: str | None = None
    architecture: str | None = None

    @property
    def model(self) -> str:
        """What to open, without the adapter."""
        return self.path if self.revision is None else f"{self.path}@{self.revision}"

    @property
    def lora(self) -> str | None:
        """The adapter to open."""
        if self.adapter is None or self.adapter_revision is None:
            return self.adapter
        return f"{self.adapter}@{self.adapter_revision}"

    def __str__(self) -> str:
        return self.model if self.lora is None else f"{self.model}+{self.lora}"


def parse_reference(value: Any, where: str, lenient: bool, warnings: list[str]) -> ModelRef:
    """A reference as it stands in a recipe.

    Parameters
    ----------
    value : text or mapping ``{model: {path, revision}, lora: {path, revision}, override_architecture}``
    where : place in the recipe, for messages
    lenient, warnings : see ``check_keys``

    Raises
    ------
    BadInput : it is neither, or a text with more than one ``+``, or more than one ``@`` a part

    >>> parse_reference("a@main+b", "models[0]", False, [])
    ModelRef(path='a', revision='main', adapter='b', adapter_revision=None, architecture=None)
    """
    if isinstance(value, str):
        parts = value.split("+")
        if len(parts) > 2:
            raise BadInput(
                f"{where}: {value!r} has more than one '+'",
                "A reference takes one adapter: MODEL+ADAPTER. "
                "Write a path that holds a '+' as a mapping: {model: {path: ...}, lora: {path: ...}}.",
            )
        model, revision = _part(parts[0], value, where)
        if len(parts) == 1:
            return ModelRef(model, revision)
        return ModelRef(model, revision, *_part(parts[1], value, where))
    if not isinstance(value, Mapping):
        raise BadInput(f"{where}: {value!r} is not a model reference", "Write PATH, PATH+ADAPTER, or {model: PATH}.")
    check_keys(value, ("model", "lora", "override_architecture"), where, lenient, warnings)
    if "model" not in value:
        raise BadInput(f"{where}: the reference has no model", "Write {model: PATH} or just PATH.")
    model, revision = _path(value["model"], f"{where}.model", lenient, warnings)
    architecture = value.get("override_architecture")
    if architecture is not None and not isinstance(architecture, str):
        raise BadInput(f"{where}.override_architecture: {architecture!r} is not a name")
    if value.get("lora") is None:
        return ModelRef(model, revision, architecture=architecture)
    return ModelRef(model, revision, *_path(value["lora"], f"{where}.lora", lenient, warnings), architecture)


def _part(text: str, whole: str, where: str) -> tuple[str, str | None]:
    """``path[@revision]``."""
    path, *revision = text.split("@")
    if len(revision) > 1:
        raise BadInput(
            f"{where}: {whole!r} has more than one '@'",
            "Write a path that holds an '@' as a mapping: {model: {path: ...}}.",
        )
    if not path or revision == [""]:
        raise BadInput(f"{where}: {whole!r} is not a model reference", "Write PATH[@REVISION][+ADAPTER[@REVISION]].")
    return path, revision[0] if revision else None


def _path(value: Any, where: str, lenient: bool, warnings: list[str]) -> tuple[str, str | None]:
    """The mapping form of one part; a text in its place is read as ``path[@revision]``."""
    if isinstance(value, str):
        return _part(value, value, where)
    if not isinstance(value, Mapping):
        raise BadInput(f"{where}: {value!r} is neither a path nor a mapping with a path")
    check_keys(value, ("path", "revision"), where, lenient, warnings)
    path, revision = value.get("path"), value.get("revision")
    if not isinstance(path, str) or not path or not (revision is None or isinstance(revision, str)):
        raise BadInput(f"{where}: {value!r} needs a path (text) and may have a revision (text)")
    return path, revision
