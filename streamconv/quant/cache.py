"""Where compiled kernels are kept, and why a damaged one is never run.

numba's own cache trusts what it finds: a file cut by a power failure or a flipped bit becomes a crash or, worse, wrong bytes.
So the folder is ours (one per version, so that upgrades do not share it) and carries a seal: a list of digests, written
after kernels were compiled. A file that does not match is deleted before numba looks, and compiled again. And numba
compares only the file of a kernel with what was compiled, but helpers of other files disappear into it: ``cache_stamp``
compares them all.

Where the folder cannot be written, a private temporary one serves this process.
"""

from __future__ import annotations

import atexit
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from contextlib import suppress
from functools import cache as once
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import xxhash

from ..room import require_room_for_kernels

#: A file that was written after the seal, and less than this ago, may belong to a process that is compiling right now.
_GRACE_S = 600
_SEAL = "seal.json"

_folder: Path | None = None
#: what was compiled for, and from which sources; see ``knows``
_known: dict[str, str] = {}


def folder() -> Path:
    """The cache folder of this process, checked and announced to numba on the first call (before numba is imported)."""
    global _folder
    if _folder is None:
        _folder = _choose()
        _drop_damaged(_folder)
        os.environ["NUMBA_CACHE_DIR"] = str(_folder)
        os.environ["NUMBA_CACHE_LOCATOR_CLASSES"] = f"{__package__}.cache_stamp.Locator"
    return _folder


@once
def compiled(module: str) -> ModuleType:
    """The module of kernels of that full name. The first one brings numba along, whose cache is then in its place.

    MemoryError where there is not enough memory to compile it.
    """
    folder()
    require_room_for_kernels()
    return import_module(module)


def _choose() -> Path:
    given = os.environ.get("NUMBA_CACHE_DIR")
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    wanted = Path(given) if given else Path(base) / "streamconv" / f"kernels-{_version()}"
    with suppress(OSError):
        wanted.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=wanted):
            return wanted
    private = Path(tempfile.mkdtemp(prefix="streamconv-kernels-"))
    atexit.register(shutil.rmtree, private, ignore_errors=True)
    return private


def _version() -> str:
    try:
        own = version("streamconv")
    except PackageNotFoundError:  # run from a source tree
        own = "source"
    return f"{own}-{platform.machine()}-py{platform.python_version()}-numba{version('numba')}"


def _files(where: Path) -> list[Path]:
    return [p for p in where.rglob("*.nb?") if p.is_file()]


def _digest(path: Path) -> str:
    facts = path.stat()
    return _digest_of(path, facts.st_mtime_ns, facts.st_size)


@once
def _digest_of(path: Path, mtime_ns: int, size: int) -> str:
    return str(xxhash.xxh3_128_hexdigest(path.read_bytes()))


def _drop_damaged(where: Path) -> None:
    """Delete files that differ from the seal, and old ones that were never sealed; take over what the seal knows."""
    try:
        sealed = json.loads((where / _SEAL).read_text())
        digests, known = dict(sealed["digests"]), dict(sealed["known"])
        sealed_at = (where / _SEAL).stat().st_mtime
    except (OSError, ValueError, TypeError, KeyError):
        digests, known, sealed_at = {}, {}, 0.0
    with suppress(OSError):
        for path in _files(where):
            written = path.stat().st_mtime
            fresh = written > sealed_at and time.time() - written < _GRACE_S
            if not fresh and _digest(path) != digests.get(str(path.relative_to(where))):
                path.unlink()
                known = {}
    _known.update(known)


def _stamp(module: str) -> str:
    from .cache_stamp import stamp

    origin = find_spec(module)
    return stamp(Path(origin.origin)) if origin is not None and origin.origin else ""


def knows(what: str, module: str) -> bool:
    """Whether the kernels of ``module`` (its full name) were compiled for ``what`` from the sources as they are."""
    folder()
    return _known.get(f"{what}: {module}") == _stamp(module)


def learn(what: str, module: str) -> None:
    """From now on ``knows`` it; ``seal`` keeps that for other processes."""
    _known[f"{what}: {module}"] = _stamp(module)


def give_up() -> None:
    """Keep nothing on disk from here on; for a folder that turned out to be unusable while compiling."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == __package__.partition(".")[0]:
            for value in list(vars(module).values()):
                kept = getattr(value, "_cache", None)
                if kept is not None and hasattr(kept, "disable"):
                    kept.disable()


def seal() -> tuple[Path, str]:
    """The seal file and the text it should hold now; whoever may write files writes it."""
    where = folder()
    digests = {}
    for path in _files(where):
        with suppress(OSError):  # another process replaced it between listing and reading
            digests[str(path.relative_to(where))] = _digest(path)
    return where / _SEAL, json.dumps({"digests": digests, "known": _known}, indent=0, sort_keys=True)
