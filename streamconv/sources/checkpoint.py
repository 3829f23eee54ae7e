"""What every source gives: named row sources, the files beside them, and the identity of what was read."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import BadInput, InputChanged, absent
from ..file_names import RECIPES, SBS, is_weights
from ..metadata import Metadata
from ..rows import Rows
from .hostile_json import MAX_JSON_BYTES, NotJson, parse_json, texts
from .side_links import foreign_target, is_needed, left_out, listed, refuse_foreign
from .small_files import read_small

#: no configuration and no tokenizer is larger (those of 256,000 tokens have 35 MB); weights of other programs are
MAX_SIDE_BYTES = 256 << 20
#: merges of 256 000 tokens have 5 MB, a model card with all its results 1 MB
MAX_TEXT_BYTES, _MAX_LINES = 16 << 20, 1 << 20

#: the key under which our outputs name the job that made them
JOB_KEY = "streamconv.job"


def refuse_mixture(jobs: Mapping[Path, str]) -> None:
    """BadInput where files of one set name different jobs that made them: parts of two models under the names of one.

    Parameters
    ----------
    jobs : what each file says, "" where it says nothing, as of other programs
    """
    named = {path: job for path, job in jobs.items() if job}
    first = next(iter(named), None)
    other = next((path for path, job in named.items() if first is not None and job != named[first]), None)
    if other is not None:
        raise BadInput(
            f"{first} and {other} were made by different conversions: together they do not form a model",
            "Run the conversion that was interrupted again, or convert both again.",
        )


#: how JSON can spell what has no UTF-8 form
_HALF_PAIR = re.compile(rb"\\u[dD][89a-fA-F]")


@dataclass(frozen=True)
class InputFile:
    """One file that weights are read from.

    Attributes
    ----------
    name : file name without its folder
    size : bytes
    digest : hex digest over the header and a sample of pages spread over the data; tells two checkpoints of the
        same shapes apart without reading them whole
    device, inode, mtime_ns, ctime_ns : the file's identity on this machine; zeros where a digest of all of it is known
    """

    name: str
    path: Path
    size: int
    digest: str
    device: int
    inode: int
    mtime_ns: int
    ctime_ns: int = 0

    @property
    def content(self) -> tuple[str, int, str]:
        """Name, size and digest of what is read: files of which these are equal give the same output."""
        return self.name, self.size, self.digest

    def verify_unchanged(self) -> bool:
        """InputChanged when the path no longer leads to the file that was opened, as it was opened.

        True when something happened to the file that need not be a change of its contents: a link, a mode, or a time that was
        put back.
        """
        try:
            now = os.stat(self.path)
        except OSError as e:
            raise InputChanged(f"{self.path} is gone: {e.strerror}") from None
        was = {"device": self.device, "inode": self.inode, "size": self.size, "mtime": self.mtime_ns}
        is_ = {"device": now.st_dev, "inode": now.st_ino, "size": now.st_size, "mtime": now.st_mtime_ns}
        changed = [f"{key} {was[key]} -> {is_[key]}" for key in was if was[key] != is_[key]]
        if changed:
            raise InputChanged(f"{self.path} changed while it was being read: {', '.join(changed)}")
        return now.st_ctime_ns != self.ctime_ns


@dataclass(frozen=True)
class Checkpoint:
    """A model as it is stored.

    Attributes
    ----------
    path : the folder or file that was opened
    tensors : name -> row source, in the order of the files and, within a file, of the names
    config : config.json, {} where the source has none
    metadata : GGUF key/values when the source is a GGUF file, else None
    inputs : the files behind the tensors
    side : the side files (tokenizer, generation config, …) by name, on disk or in memory; None: those of ``folder``
    name : what the model is called where no file says; empty: as the folder is
    config_file : the side file that ``config`` was read from
    target : the model that this one drafts for, without its weights
    base : of an adapter: the model that it changes, without its weights
    adapters : adapters in GGUF's names and what their changes are multiplied by, which are applied to what becomes of it
    """

    path: Path
    tensors: Mapping[str, Rows]
    config: Mapping[str, Any]
    inputs: tuple[InputFile, ...]
    metadata: Metadata | None = None
    warnings: list[str] = field(default_factory=list)
    side: Mapping[str, Path | bytes] | None = None
    name: str = ""
    config_file: str = "config.json"
    target: Checkpoint | None = None
    base: Checkpoint | None = None
    adapters: tuple[tuple[Checkpoint, float], ...] = ()

    def verify_unchanged(self) -> bool:
        """InputChanged when any of the files is not what it was when it was opened; True when one may not be."""
        return any([file.verify_unchanged() for file in self.inputs])

    @property
    def folder(self) -> Path:
        """Where messages say that side files are, and by default they are."""
        return self.path.parent if self.path.is_file() else self.path

    def side_names(self) -> list[str]:
        """Names of all side files, sorted: what is neither a weight file nor its index, nor hidden, nor a link to elsewhere.

        Those in subfolders have names such as ``additional_chat_templates/tools.jinja``.
        """
        if self.side is not None:
            return sorted(self.side)
        return [n for n in self._beside() if is_needed(n) or foreign_target(self.folder, n) is None]

    def _beside(self) -> list[str]:
        names = (n for n in listed(self.folder) if not n.startswith(".") and not is_weights(n))
        return sorted(names)

    def note_links(self) -> None:
        """Add to ``warnings`` which links beside the weights are left out, if there are any."""
        if self.side is None:
            self.warnings.extend(left_out(self.folder, self._beside()))

    def side_file(self, name: str) -> Path | bytes | None:
        """The side file ``name``: its path, or its bytes where it exists in memory only; None when there is none.

        BadInput when it is a link that leads away from the model, InputMissing when it is one that leads nowhere.
        """
        if self.side is not None:
            return self.side.get(name)
        path = self.folder / name
        if not path.is_file():
            if path.is_symlink() and not path.exists() and is_needed(name):
                raise absent(path)
            return None
        refuse_foreign(self.folder, name)
        return path

    def called(self, name: str) -> Path:
        """What messages call the side file ``name``: where it lies, which in a merge is the folder of one of its models.

        What a recipe or a file made, as its config.json, lies nowhere.
        """
        found = None if self.side is None else self.side.get(name)
        if self.side is not None and not isinstance(found, Path) and self.path.suffix in (*RECIPES, *SBS.endings):
            return self.path.with_name(f"{self.path.name}, {name}")
        return found if isinstance(found, Path) and found.name == Path(name).name else self.folder / name

    def side_bytes(self, name: str) -> bytes | None:
        """The bytes of the side file ``name``, or None when there is none; BadInput when it is far too large for one."""
        found = self.side_file(name)
        if not isinstance(found, Path):
            return found
        return read_small(found, MAX_SIDE_BYTES)

    def text(self, name: str) -> str | None:
        """The side file ``name`` as UTF-8 text, or None when there is none; BadInput when it is far too long for one."""
        found = self.side_bytes(name)
        if found is not None and (len(found) > MAX_TEXT_BYTES or found.count(b"\n") > _MAX_LINES):
            raise BadInput(f"{self.called(name)} is too long for a side file: {len(found)} bytes")
        try:
            return None if found is None else found.decode("utf-8")
        except UnicodeDecodeError as e:
            raise BadInput(f"{self.called(name)} is not UTF-8 (byte {e.start})") from None

    def json(self, name: str) -> dict[str, Any] | None:
        """The side file ``name`` as a JSON object, or None when there is none."""
        found = self.side_bytes(name)
        return None if found is None else _object(found, self.called(name), of_tokenizer=True)

    def json_list(self, name: str) -> list[Any]:
        """What is in the side file ``name``, a JSON list; empty where there is none of that name."""
        text = self.text(name)
        try:
            found = [] if text is None else parse_json(text.encode())
        except NotJson as e:
            raise BadInput(f"{self.called(name)} {e}") from None
        if not isinstance(found, list):
            raise BadInput(f"{self.called(name)} is not a JSON list")
        return found


def _object(data: bytes, path: Path, of_tokenizer: bool = False) -> dict[str, Any]:
    """The JSON object in ``data``; BadInput, naming ``path``, when it is something else."""
    try:
        value = parse_json(data, of_tokenizer=of_tokenizer)
    except NotJson as e:
        raise BadInput(f"{path} {e}") from None
    if not isinstance(value, dict):
        raise BadInput(f"{path} is not a JSON object")
    return value


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in the file ``path``, a configuration or an index.

    Errors: InputMissing, NoPermission, or BadInput for what is not a JSON object in UTF-8, or far too large for one.
    """
    data = read_small(path, MAX_JSON_BYTES)
    value = _object(data, path)
    if _HALF_PAIR.search(data):  # rarely, and then mostly whole pairs
        try:
            for text in texts(value):
                text.encode()
        except UnicodeEncodeError:
            raise BadInput(
                f"{path} contains half of a surrogate pair, which is not valid text and cannot be written"
            ) from None
    return value
