"""Links beside the weights: which of them lead to the model's own files.

What lies beside the weights goes into outputs, whole or in parts, and outputs are given away. A model folder that another user
created may hold ``NOTICE.txt -> ~/.ssh/id``; so a link is followed only where it stays with the model: in its folder, or in
the ``blobs/`` that a cache of the hub keeps beside the folder of a commit.

    models--ORG--NAME/snapshots/COMMIT/…    links to models--ORG--NAME/blobs/KEY     (huggingface_hub)
    ORG--NAME/COMMIT/NAME/…                 links to ORG--NAME/blobs/KEY, or to those of huggingface_hub for the same model

Weights may lie anywhere: they are large, people link them from other disks, and they become numbers, never text.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from ..errors import BadInput, absent
from ..file_names import MORE_TEMPLATES
from .naming import shown

_COMMIT = re.compile(r"[0-9a-f]{40}")
#: folders of the modules of sentence-transformers, such as ``1_Pooling``, which have a configuration each
_MODULE = re.compile(r"\d{1,3}_[A-Za-z]\w*")
#: what a tokenizer, a configuration or a model's code may be called; an output without it would not be the same model
_NEEDED = re.compile(r".*\.(json|model|jinja|py|tiktoken)|(vocab|merges)\.txt")


def is_needed(name: str) -> bool:
    """Whether a side file of that name is more than a text for people."""
    return _NEEDED.fullmatch(name) is not None


def is_module(folder: str) -> bool:
    """Whether a folder of that name is of a module of sentence-transformers, see ``is_beside``."""
    return _MODULE.fullmatch(folder) is not None


def is_beside(name: str) -> bool:
    """Whether a file of that name is of the model, by where it lies: beside the weights, a chat template, a module's configuration.

    >>> [is_beside(name) for name in ("a.txt", "additional_chat_templates/x.jinja", "1_Pooling/config.json", "onnx/config.json")]
    [True, True, True, False]
    """
    folder, _, last = name.rpartition("/")
    return folder in ("", MORE_TEMPLATES) or (last == "config.json" and is_module(folder))


def listed(folder: Path) -> Iterator[str]:
    """Names of the regular files that are of the model in ``folder``, see ``is_beside``, links to files included.

    Of links that lead nowhere those that are needed, see ``is_needed``: opening them will report it.
    """
    if not os.path.isdir(folder):
        return
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    yield from (entry.name for entry in found if entry.is_file() or _is_lost(entry))
    for entry in found:
        if entry.name == MORE_TEMPLATES and entry.is_dir():
            with os.scandir(folder / MORE_TEMPLATES) as templates:
                yield from (f"{MORE_TEMPLATES}/{template.name}" for template in templates if template.is_file())
        elif is_module(entry.name) and os.path.isfile(folder / entry.name / "config.json"):
            yield f"{entry.name}/config.json"


def _is_lost(entry: os.DirEntry[str]) -> bool:
    return entry.is_symlink() and is_needed(entry.name) and not os.path.exists(entry.path)


def foreign_target(folder: Path, name: str) -> str | None:
    """Where the side file ``name`` of ``folder`` really lies, if that is not with the model; else None."""
    target = os.path.realpath(folder / name)
    home = Path(os.path.realpath(folder))
    within = [str(home)]
    for place in (home, *home.parents):
        cache = place.parent.parent
        if place.parent.name == "snapshots" and cache.name.startswith("models--"):
            within.append(str(cache / "blobs"))
        elif _COMMIT.fullmatch(place.name):
            within.append(str(place.parent / "blobs"))
            blobs = os.path.dirname(target)
            if blobs.endswith(f"/models--{place.parent.name}/blobs"):
                within.append(blobs)
    is_own = any(target.startswith(f"{folder.rstrip('/')}/") for folder in within)
    return None if is_own else target


def refuse_foreign(folder: Path, name: str) -> None:
    """BadInput when the side file ``name`` of ``folder`` is a link that leads away from the model, InputMissing when nowhere."""
    target = foreign_target(folder, name)
    if target is not None:
        if not os.path.exists(target):
            raise absent(folder / name)
        raise BadInput(
            f"{folder / name} is a link to {target}, outside of the model's folder",
            "Files beside the weights go into outputs, so they are not read from elsewhere: put a copy in place of the link.",
        )


def left_out(folder: Path, names: list[str]) -> list[str]:
    """A note that names the links among ``names`` that are not followed though nothing depends on them."""
    found = {name: foreign_target(folder, name) for name in names if not is_needed(name)}
    away = [f"{shown(name, 300)} -> {shown(target, 4096)}" for name, target in found.items() if target is not None]
    if not away:
        return []
    more = f" and {len(away) - 3} more" if len(away) > 3 else ""
    return [f"{folder}: links that lead out of the model's folder are left out: {', '.join(away[:3])}{more}"]
