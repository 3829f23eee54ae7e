"""A model on the hub: how it is named, and what a commit of it holds."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from ...errors import BadInput, UsageError
from ..naming import shown

#: as the hub allows them: letters, digits, "-", "_" and "." within; one organization or none
_NAME = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}"
_REFERENCE = re.compile(
    rf"(?:hf://|https://(?:huggingface\.co|hf\.co)/)?(?P<repo>{_NAME}/{_NAME})(?P<path>(?:/[^/@\\]+)*)(?:@(?P<revision>[^@\s]+))?"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
#: kinds of digests that the hub lists
KINDS = {"sha256": re.compile(r"[0-9a-f]{64}"), "git-sha1": re.compile(r"[0-9a-f]{40}")}


@dataclass(frozen=True)
class Reference:
    """What a user names: ``org/model``, ``org/model@revision`` or, for one file of it, ``org/model/file.gguf@revision``.

    Attributes
    ----------
    repo : ``org/model``
    revision : a branch, a tag or a commit
    file : the one file meant, "" for the model as a whole
    """

    repo: str
    revision: str = "main"
    file: str = ""

    def __str__(self) -> str:
        file = f"/{self.file}" if self.file else ""
        return f"{self.repo}{file}@{self.revision}"

    @property
    def folder(self) -> str:
        """The repo as one folder name."""
        return self.repo.replace("/", "--")


def parse_reference(text: str) -> Reference | None:
    """What ``text`` names on the hub; None when it cannot be a name there.

    >>> parse_reference("google/gemma-3-4b-it@v1")
    Reference(repo='google/gemma-3-4b-it', revision='v1', file='')
    >>> parse_reference("hf://org/model/q4_k.gguf")
    Reference(repo='org/model', revision='main', file='q4_k.gguf')
    >>> parse_reference("./folder/model"), parse_reference("/a/b"), parse_reference("model.gguf")
    (None, None, None)
    """
    found = _REFERENCE.fullmatch(text)
    if found is None or ".." in found["repo"] or "--" in found["repo"]:
        return None
    if fault_of_path(found["path"][1:] or "x") or fault_of_path(found["revision"] or "x"):
        return None
    return Reference(found["repo"], found["revision"] or "main", found["path"][1:])


def is_commit(revision: str) -> bool:
    """Whether ``revision`` is a whole commit id, which never moves."""
    return _COMMIT.fullmatch(revision) is not None


#: what Linux allows, with room for the folders above
_MAX_NAME_BYTES, _MAX_PATH_BYTES = 255, 2048
#: the hub takes 500 GB
_MAX_FILE_BYTES = 1 << 44
_TELL = "Tell the model's owner."


@dataclass(frozen=True)
class HubFile:
    """One file of a commit.

    Attributes
    ----------
    repo, commit : ``org/model`` and its pinned commit
    path : name within the repository, with slashes
    size : bytes
    kind : ``sha256`` of the content for large files, ``git-sha1`` (of git's blob object) for small ones
    key : the digest, hexadecimal
    """

    repo: str
    commit: str
    path: str
    size: int
    kind: str
    key: str

    @property
    def digest(self) -> str:
        """Kind and digest in one word."""
        return f"{self.kind}:{self.key}"

    def new_hash(self) -> hashlib._Hash:
        """A running digest whose end must equal ``key``."""
        if self.kind == "sha256":
            return hashlib.sha256()
        # Git names a blob by the digest of a header and its content.
        return hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False)


@dataclass(frozen=True)
class HubModel:
    """A pinned commit of a model.

    Attributes
    ----------
    repo : ``org/model``
    revision : what was asked for
    commit : what it meant, for good
    files : all files of the commit, by path
    folder : where the hub's own cache has this commit when the hub could not be asked, else ""
    warnings : what a user should know of how it was found
    """

    repo: str
    revision: str
    commit: str
    files: Mapping[str, HubFile]
    folder: str = ""
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.repo}@{self.commit[:12]}"

    @property
    def name(self) -> str:
        """The model's name without its organization."""
        return self.repo.rpartition("/")[2]

    @property
    def folder_name(self) -> str:
        """The repo as one folder name."""
        return self.repo.replace("/", "--")

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(f.size for f in self.files.values())

    def to_json(self) -> dict[str, Any]:
        """For ``from_json``; without ``revision``, which differs from time to time."""
        files = [{"path": f.path, "size": f.size, "kind": f.kind, "key": f.key} for f in self.files.values()]
        return {"repo": self.repo, "commit": self.commit, "files": files}

    @classmethod
    def from_json(cls, record: Mapping[str, Any], revision: str) -> HubModel | None:
        """The model that ``to_json`` described; None when the record is damaged."""
        try:
            repo, commit = str(record["repo"]), str(record["commit"])
            files = [hub_file(repo, commit, f["path"], f["size"], f["kind"], f["key"]) for f in record["files"]]
            require_distinct([f.path for f in files], repo)
            return cls(repo, revision, commit, {f.path: f for f in files})
        except (KeyError, TypeError, BadInput):
            return None


def hub_file(repo: str, commit: str, path: Any, size: Any, kind: Any, key: Any) -> HubFile:
    """A file as the hub lists it, checked: what it says becomes file names here.

    Raises
    ------
    BadInput : a path that leads out of its folder, a size that none has, something that is no digest
    """
    fault = fault_of_path(path) if isinstance(path, str) else "is not a valid name"
    if fault:
        raise BadInput(f"{repo}@{commit[:12]}: the hub lists a file {shown(str(path))}, which {fault}", _TELL)
    if type(size) is not int or not 0 <= size <= _MAX_FILE_BYTES:
        raise BadInput(f"{repo}@{commit[:12]}: the hub lists {shown(path)} with the size {shown(str(size))}", _TELL)
    if kind not in KINDS or not isinstance(key, str) or not KINDS[kind].fullmatch(key):
        what = f"{shown(path)} with {shown(str(key))}, which is not a {shown(str(kind))} digest"
        raise BadInput(f"{repo}@{commit[:12]}: the hub lists {what}", _TELL)
    return HubFile(repo, commit, path, size, kind, key)


def fault_of_path(path: str) -> str:
    """Why no file here may be called ``path``, "" where one may: it would not lie below its folder, or not be shown as it is."""
    pure = PurePosixPath(path)
    if not path or str(pure) != path or pure.is_absolute() or ".." in pure.parts or "\\" in path or ":" in path:
        return "would be outside its folder"
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        return "has no UTF-8 form"
    if any(ord(c) < 32 or 127 <= ord(c) < 160 for c in path):
        return "has control characters"
    if len(encoded) > _MAX_PATH_BYTES or any(len(name) > _MAX_NAME_BYTES for name in encoded.split(b"/")):
        return "is longer than file systems allow"
    return ""


def require_distinct(paths: Collection[str], model: str) -> None:
    """BadInput when one of ``paths`` is a folder of another one."""
    folders = {str(folder) for path in paths for folder in PurePosixPath(path).parents}
    for path in paths:
        if path in folders:
            raise BadInput(f"{model}: the hub lists {shown(path)} as a file and as a folder", _TELL)


def require_reference(text: str) -> Reference:
    """``parse_reference``, or UsageError."""
    found = parse_reference(text)
    if found is None:
        raise UsageError(f"{shown(text)} does not name a model on the hub", "Write org/model, or org/model@revision.")
    return found
