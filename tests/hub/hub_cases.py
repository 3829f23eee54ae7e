"""Names that the tests of the hub share."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from server import Hub

from streamconv.sources import read_gguf

MODEL = "org/tiny-gemma3"
WEIGHTS = "model.safetensors"


def tensor_bytes(path: Path) -> bytes:
    """What follows the header, which holds the fingerprint of the job."""
    return path.read_bytes()[read_gguf(path).header.data_start :]


def in_hf_cache(hub: Hub, cache: Path, source: Path) -> Path:
    """Put ``MODEL``, whose files lie in ``source``, where huggingface_hub caches it; the folder of its files in there."""
    ((commit, files),) = hub.models[MODEL].items()
    repo = cache / "models--org--tiny-gemma3"
    for name, stored in files.items():
        blob, link = repo / "blobs" / stored.etag, repo / "snapshots" / commit / name
        blob.parent.mkdir(parents=True, exist_ok=True)
        link.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, blob)
        link.symlink_to(os.path.relpath(blob, link.parent))
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    return repo / "snapshots" / commit
