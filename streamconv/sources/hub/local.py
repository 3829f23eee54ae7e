"""What huggingface_hub's own cache has of a model. It is only read.

Its layout: ``models--ORG--NAME/snapshots/COMMIT/FILE`` are links to ``blobs/KEY``, where the key is the sha256 of a large file
and git's id of a small one; a blob has that name only when it is complete.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from ...ownership import folder_fault
from .model import HubFile, HubModel, Reference, fault_of_path, is_commit

_LENGTHS = {64: "sha256", 40: "git-sha1"}
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True)
class Cached:
    """A complete file of the cache.

    Attributes
    ----------
    is_trusted : whether no other user can write to it; several users may share the cache
    """

    path: Path
    is_trusted: bool


def cached_file(file: HubFile) -> Cached | None:
    """Where ``file`` lies complete; None when it does not.

    It counts when it has the listed size and, where blobs are named by digests, the listed digest. Its bytes are not read:
    that they fit their name was checked by the process that fetched them, unless others can write there.
    """
    path = _snapshot(file.repo, file.commit) / file.path
    try:
        # What has no digest for a name lies there itself; a link would lead anywhere.
        fits = _key(path) == file.key or (not _key(path) and not path.is_symlink())
        good = fits and path.is_file() and path.stat().st_size == file.size and os.access(path, os.R_OK)
    except OSError:
        return None
    return Cached(path, _is_trusted(path)) if good else None


def _is_trusted(path: Path) -> bool:
    real = Path(os.path.realpath(path))
    try:
        found, fault = os.lstat(real), folder_fault(real.parent)
    except OSError:
        return False
    return (
        not fault
        and not found.st_mode & _OTHERS_WRITE
        and found.st_uid in (0, os.geteuid(), os.stat(real.parent).st_uid)
    )


def cached_model(ref: Reference) -> HubModel | None:
    """The model as far as the cache has it, found without any network; None when it has nothing of that revision."""
    commit = ref.revision
    if not is_commit(commit):
        commit = _read_small(_repo(ref.repo) / "refs" / ref.revision)
    folder = _snapshot(ref.repo, commit)
    if not is_commit(commit) or not folder.is_dir():
        return None
    files, unknown = {}, 0
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name, key, size = path.relative_to(folder).as_posix(), _key(path), path.stat().st_size
        if fault_of_path(name) or (not key and not _is_trusted(path)):
            unknown += 1
            continue
        # Without a digest, the commit and the name stand for the content; such a file is there, so it will not be checked.
        kind, key = _LENGTHS.get(len(key), "commit"), key or f"{commit}-{name}".replace("/", "-")
        files[name] = HubFile(ref.repo, commit, name, size, kind, key)
    warnings = []
    if folder_fault(folder):
        warnings.append(f"{folder} {folder_fault(folder)}: its list of files is trusted, their digests are checked")
    if unknown:
        warnings.append(f"{folder}: {unknown} files that others may have put there are left out")
    return HubModel(ref.repo, ref.revision, commit, files, str(folder), tuple(warnings)) if files else None


def _read_small(path: Path) -> str:
    """The one line that ``path`` holds; "" where it holds something else."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe would have us wait
    except (OSError, ValueError):
        return ""
    try:
        return os.read(fd, 4096).decode(errors="replace").strip() if stat.S_ISREG(os.fstat(fd).st_mode) else ""
    finally:
        os.close(fd)


def _repo(repo: str) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"


def _snapshot(repo: str, commit: str) -> Path:
    return _repo(repo) / "snapshots" / commit


def _key(path: Path) -> str:
    """The digest that the blob is named by, "" where it has another name."""
    name = os.path.basename(os.path.realpath(path))
    is_key = len(name) in _LENGTHS and all(c in "0123456789abcdef" for c in name)
    return name if is_key else ""
