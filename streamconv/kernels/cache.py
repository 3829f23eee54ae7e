"""Where compiled kernels are kept, and why neither a damaged one nor another user's is ever run.

A kept kernel is code, so a user who can write the folder decides what we run. Nothing is read from or written to a folder that
others can write or exchange, nor one with a relative name, which would mean another folder wherever we are started: without a
folder of our own, kernels are compiled for this process alone. The folder is one per version, below what the user names:
nothing beside it is looked at, and of what is in it only what ``save`` made is read. Nothing is ever deleted; ``save`` replaces
what it wrote under the same name, which tells source trees and processors apart.

A file cut by a power failure or a flipped bit becomes a crash or, worse, wrong bytes. So each begins with a digest of its
contents and of all that they were made from; a file that does not match is compiled again and replaced.
"""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from functools import cache as once
from importlib.util import find_spec
from pathlib import Path

import xxhash

from ..errors import NoPermission
from ..ownership import open_regular, path_fault
from .loading import PACKAGE

#: changes with what is in the files and with their names
_FORMAT = b"streamconv kernel 1\n"
_HEAD = len(_FORMAT) + 16

#: what was compiled for, and from which sources; see ``knows``
_known: set[tuple[str, str, str]] = set()
#: why the first file that could not be written was not
_failure = ""


def folder() -> Path | None:
    """Where this process keeps kernels; made on the first call. None where no folder can be trusted, see ``not_kept``."""
    return _place()[0]


def not_kept() -> str:
    """Why what is compiled now is not there for later processes, "" if it is."""
    return _place()[1] or _failure


@once
def _place() -> tuple[Path | None, str]:
    given = os.environ.get("NUMBA_CACHE_DIR")
    base = Path(given or os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "streamconv"))
    wanted = base / f"kernels-{_version()}"
    try:
        fault = _fault(wanted)
    except OSError as e:
        fault = f"{e.filename or wanted}: {e.strerror or e}"
    return (None, fault) if fault else (Path(os.path.realpath(wanted)), "")


def _fault(wanted: Path) -> str:
    """Why ``wanted`` cannot be used, "" if it can; it is then there. Nothing is made where others could exchange it."""
    if not wanted.is_absolute():
        return f"{wanted} is not an absolute path"
    missing = []
    for there in (wanted, *wanted.parents):
        if os.path.lexists(there):
            break
        missing.append(there)
    fault = path_fault(there, shared=bool(missing))
    if fault:
        return fault
    for path in reversed(missing):
        with suppress(FileExistsError):  # another process has just made it
            os.mkdir(path, 0o755)
    return f"{wanted} is a symbolic link" if wanted.is_symlink() else path_fault(wanted)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # takes long to load, and a plan needs none

    try:
        own = version("streamconv")
    except PackageNotFoundError:  # run from a source tree
        own = "source"
    return f"{own}-{platform.machine()}-py{platform.python_version()}-numba{version('numba')}"


def name_of(label: str, *facts: object) -> str:
    """The name of the file for what has these ``facts``; ``label`` is for people who look into the folder."""
    return f"{label[:100]}-{xxhash.xxh3_128_hexdigest(repr(facts).encode())}.kernel"


def load(name: str, made_from: str) -> bytes | None:
    """What ``save`` kept as ``name``; None if it is not there, damaged, or was made from something else."""
    where = folder()
    if where is None:
        return None
    try:
        with open(open_regular(where / name, os.O_RDONLY), "rb") as file:
            data = b"" if os.fstat(file.fileno()).st_mode & 0o022 else file.read()
    except (OSError, NoPermission):
        return None
    content = data[_HEAD:]
    return content if data[:_HEAD] == _head(content, made_from) else None


def save(name: str, made_from: str, content: bytes) -> None:
    """Keep ``content`` as ``name`` for later processes, if that is possible; replaces what is there, as a whole."""
    global _failure
    where = folder()
    if where is None or _failure:
        return
    temporary = where / f".{os.urandom(8).hex()}.tmp"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            with open(fd, "wb") as file:
                file.write(_head(content, made_from) + content)
            os.replace(temporary, where / name)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as e:  # it only costs compiling again
        _failure = f"{where}: {e.strerror or e}"


def _head(content: bytes, made_from: str) -> bytes:
    digest = xxhash.xxh3_128(f"{len(made_from)} {made_from}".encode())
    digest.update(content)
    return _FORMAT + digest.digest()


def knows(what: str, module: str) -> bool:
    """Whether the kernels of ``module`` (see ``load``) were compiled for ``what`` from the sources as they are."""
    source, stamp = _source(module)
    return (what, source, stamp) in _known or load(name_of(what, source), stamp) is not None


def learn(what: str, module: str) -> None:
    """From now on ``knows`` it, in later processes, too."""
    source, stamp = _source(module)
    _known.add((what, source, stamp))
    save(name_of(what, source), stamp, b"")


def _source(module: str) -> tuple[str, str]:
    from .cache_stamp import stamp

    origin = find_spec(module, PACKAGE)
    return (origin.origin, stamp(Path(origin.origin))) if origin is not None and origin.origin else (module, "")
