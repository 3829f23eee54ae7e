"""Which files of a commit a conversion needs."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase

from ...errors import BadInput, InputMissing
from ...file_names import (
    GGUF,
    HUGGING_FACE,
    MLX_ADAPTER,
    PACK,
    PACKED,
    SBS,
    Container,
    Layout,
    container_of,
    is_weights,
    part_names,
    part_of,
)
from ..checkpoint import MAX_SIDE_BYTES
from ..folder import prefers_whole
from ..known_layouts import by_names
from ..naming import shown_list
from ..side_links import is_beside
from .model import HubFile, HubModel

#: side files that no converter looks at and that may be large
_PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".svg", ".pdf", ".mp3", ".mp4", ".wav", ".parquet")
#: what lies in the folder of a dense module of sentence-transformers
_DENSE = re.compile(r"\d{1,3}_Dense/")


def _weights(layout: Layout) -> tuple[str, ...]:
    """Weights by preference: the first pattern that matches anything."""
    if layout is not HUGGING_FACE:
        return tuple(c.pattern for c in layout.containers)
    return (*(name for c in layout.containers for name in (c.pattern, c.adapter)), MLX_ADAPTER)


def side_files(model: HubModel, layout: Layout = HUGGING_FACE) -> list[HubFile]:
    """Configuration, tokenizer, card and what else lies beside the weights; see ``Checkpoint.side_names``."""
    return [f for path, f in sorted(model.files.items()) if _is_side(path, layout) and f.size <= MAX_SIDE_BYTES]


def _is_side(path: str, layout: Layout) -> bool:
    name = path.rpartition("/")[2]
    return (
        is_beside(path)
        and not name.startswith(".")
        and not name.lower().endswith(_PICTURES)
        and (not is_weights(name) or name in [c.index for c in layout.containers])
    )


def index_file(model: HubModel, layout: Layout = HUGGING_FACE) -> str:
    """The index of the weights that ``weight_files`` would take, "" where they have none."""
    container = _container(model, layout)
    return container.index if container is not None and container.index in model.files else ""


def _container(model: HubModel, layout: Layout) -> Container | None:
    """The format of the weights that ``weight_files`` would take."""
    return next((c for c in layout.containers if c.index in model.files or _matching(model, c.pattern)), None)


def is_whole_meant(model: HubModel, named: Collection[str], layout: Layout = HUGGING_FACE) -> tuple[bool, str]:
    """Whether one whole file is taken and not those that an index ``named``, and a note where both are there.

    As with folders; except that the whole file is not opened here: one of less than half of their size is no model.
    """
    index, whole = index_file(model, layout), (_container(model, layout) or layout.containers[0]).whole
    if not named or not prefers_whole(model.files, named, whole):
        return False, ""
    if not all(name in model.files for name in named):
        return True, f"{model}: {whole} is used, as {index} names files that are missing"
    if 2 * model.files[whole].size < sum(model.files[name].size for name in named):
        return False, f"{model}: the files of {index} are used; {whole}, which is much smaller, is ignored"
    return True, f"{model}: {whole} is used, as transformers does; the files of {index} are ignored"


def _matching(model: HubModel, pattern: str) -> list[str]:
    """The files beside config.json, none of a subfolder, that ``pattern`` fits; sorted."""
    return sorted(path for path in model.files if fnmatchcase(path, pattern) and "/" not in path)


def weight_files(model: HubModel, named: Iterable[str] = (), layout: Layout = HUGGING_FACE) -> list[HubFile]:
    """The files of the weights, in one container.

    Parameters
    ----------
    named : those that an index lists, where there is one

    Raises
    ------
    InputMissing : there are none, or not all that are named
    BadInput : there are only files that each are a model
    """
    patterns = _weights(layout)
    wanted = [] if is_whole_meant(model, named := set(named), layout)[0] else sorted(named)
    if not any(name in model.files for name in wanted) and any(_matching(model, p) for p in patterns):
        wanted = []  # an index of files that are all gone tells of nothing that is there
    absent = [name for name in wanted if name not in model.files]
    if absent:
        raise InputMissing(
            f"{model}: {len(absent)} of {len(wanted)} weight files are not listed: {shown_list(absent)}",
            "The upload is incomplete; tell the model's owner.",
        )
    for pattern in () if wanted else patterns:
        wanted = _matching(model, pattern)
        for whole in (c.whole for c in layout.containers):
            if whole in wanted and any(part_of(name) for name in wanted):  # the same weights again, in parts
                wanted = [whole]
        if wanted:
            break
    ggufs = sorted(path for path in model.files if path.endswith((*GGUF.endings, *SBS.endings)))
    if not wanted and ggufs:
        kind = "GGUF" if container_of(ggufs[0]) is GGUF else "gemma.cpp's"
        raise BadInput(
            f"{model} holds {kind} files only: {shown_list(ggufs)}", f"Name one of them: {model.repo}/{ggufs[0]}"
        )
    if not wanted:
        hint = by_names(model.files) if layout is HUGGING_FACE else ""
        raise InputMissing(f"{model} has no weights: none of {', '.join(patterns)}", hint)
    return [model.files[name] for name in wanted]


def module_files(model: HubModel, path: str = "") -> list[HubFile]:
    """Configuration and weights of the module in the folder ``path``; without one, of all dense modules.

    Raises
    ------
    InputMissing : the folder ``path`` lacks one of them
    """
    folders = [path] if path else sorted({name.partition("/")[0] for name in model.files if _DENSE.match(name)})
    found = []
    for folder in folders:
        wholes = [w for c in HUGGING_FACE.containers if (w := f"{folder}/{c.whole}") in model.files][:1]
        names = [name for name in (f"{folder}/config.json", *wholes) if name in model.files]
        if path and len(names) < 2:
            raise InputMissing(
                f"{model}: {path} lacks config.json or {HUGGING_FACE.containers[0].whole}",
                "The upload is incomplete; tell the model's owner.",
            )
        found += [model.files[name] for name in names]
    return found


def one_file(model: HubModel, path: str) -> list[HubFile]:
    """The GGUF or safetensors file ``path``, with the other splits of it.

    Raises
    ------
    InputMissing : it is not there, or a folder
    """
    if any(name.startswith(f"{path}/") for name in model.files):
        raise InputMissing(
            f"{model}: {path} is a folder",
            f"Fetch it whole with `streamconv fetch --all {model.repo}`, then convert the folder that it prints.",
        )
    if path.endswith((PACKED, PACK)):
        raise BadInput(
            f"{model}: {path} is compressed or packed; such files are read on this machine only",
            f"Fetch it with `streamconv fetch --all {model.repo}`, then convert the file that it prints.",
        )
    if path not in model.files:
        near = [p for p in model.files if p.rpartition(".")[2] == path.rpartition(".")[2]]
        raise InputMissing(f"{model} has no file {path}", f"It has {shown_list(near)}." if near else "")
    part = part_of(path) if container_of(path) is GGUF else None
    names = part_names(part.stem, part.n_parts, part.ending) if part is not None else [path]
    return [model.files[name] for name in names if name in model.files]
