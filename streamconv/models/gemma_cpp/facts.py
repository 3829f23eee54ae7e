"""What is in a weight file, as data that JSON can hold."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ...errors import BadInput
from ...quant.sbs.container import TOKENIZER
from ...sources.checkpoint import Checkpoint
from .model_config import TYPE_NAMES
from .reading import Contents, contents, with_shapes


def facts(checkpoint: Checkpoint, warnings: list[str]) -> dict[str, Any]:
    """Blobs, configuration, table of contents and tensors of ``checkpoint``, as ``sources.open_checkpoint`` gives it.

    What cannot be read is told in ``warnings``.

    Returns
    -------
    dict with ``blobs`` (a list of ``key``, ``offset``, ``bytes``), ``config`` and ``toc`` where they are there, ``tensors`` (a list
    of ``name``, ``shape``, ``dtype``, ``bytes``, ``file`` and ``scale``) and ``tokenizer``
    """
    blobs = [{"key": key, "offset": b.offset, "bytes": b.n_bytes} for key, b in checkpoint.tensors.items()]  # type: ignore[attr-defined]
    told: dict[str, Any] = {"blobs": blobs, "tensors": [], "config": {}, "tokenizer": {"files": []}}
    try:
        found = contents(checkpoint)
        told["config"] = _config(found)
        found = with_shapes(found) if found.tensors else found
    except BadInput as e:
        warnings.append(e.message)
        return told
    if found.listed:
        told["toc"] = [
            {"name": n, "type": t.type, "rows": t.shape[0], "cols": t.shape[1], "scale": t.scale}
            for n, t in found.tensors.items() if t.shape is not None
        ]  # fmt: skip
    told["tensors"] = [
        {"name": name, "shape": list(t.shape), "dtype": t.type, "bytes": found.sizes.get(t.blob, 0),
         "file": found.path.name, "scale": t.scale}
        for name, t in found.tensors.items() if t.shape is not None
    ]  # fmt: skip
    if TOKENIZER in found.blobs:
        told["tokenizer"]["files"] = [{"name": TOKENIZER, "bytes": found.blobs[TOKENIZER].n_bytes}]
    return told


def _config(found: Contents) -> dict[str, Any]:
    if found.config is None:
        return {}
    return {**asdict(found.config), "weight": TYPE_NAMES.get(found.config.weight, found.config.weight)}
