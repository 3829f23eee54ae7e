"""What huggingface_hub's own cache has of a model. It is only read.

Its layout: ``models--ORG--NAME/snapshots/COMMIT/FILE`` are links to ``blobs/KEY``, where the key is the sha256 of a large file
and git's id of a small one; a blob has that name only when it is complete.
"""

from __future__ import annotations

import os
from pathlib import Path

from .model import HubFile, HubModel, Reference, is_commit

_KINDS = {64: "sha256", 40: "git-sha1"}


def cached_file(file: HubFile) -> Path | None:
    """Where ``file`` lies complete; None when it does not.

    It counts when it has the listed size and, where blobs are named by digests, the listed digest. Its bytes are not read:
    that they fit their name was the business of whoever fetched them.
    """
    path = _snapshot(file.repo, file.commit) / file.path
    try:
        good = path.is_file() and path.stat().st_size == file.size and _key(path) in (file.key, "")
    except OSError:
        return None
    return path if good else None


def cached_model(ref: Reference) -> HubModel | None:
    """The model as far as the cache has it, found without any network; None when it has nothing of that revision."""
    commit = ref.revision
    if not is_commit(commit):
        try:
            commit = (_repo(ref.repo) / "refs" / ref.revision).read_text().strip()
        except (OSError, ValueError):
            return None
    folder = _snapshot(ref.repo, commit)
    if not is_commit(commit) or not folder.is_dir():
        return None
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name, key, size = path.relative_to(folder).as_posix(), _key(path), path.stat().st_size
        # Without a digest, the commit and the name stand for the content; such a file is there, so nobody will check it.
        kind, key = _KINDS.get(len(key), "commit"), key or f"{commit}-{name}".replace("/", "-")
        files[name] = HubFile(ref.repo, commit, name, size, kind, key)
    return HubModel(ref.repo, ref.revision, commit, files, str(folder)) if files else None


def _repo(repo: str) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"


def _snapshot(repo: str, commit: str) -> Path:
    return _repo(repo) / "snapshots" / commit


def _key(path: Path) -> str:
    """The digest that the blob is named by, "" where it has another name."""
    name = os.path.basename(os.path.realpath(path))
    is_key = len(name) in _KINDS and all(c in "0123456789abcdef" for c in name)
    return name if is_key else ""
