"""Errors a user can meet, each with its exit code (sysexits.h).

    StreamconvError           70  base class; raised itself only for our own bugs
    ├── UsageError            64  the command line, or a combination of options, makes no sense
    ├── BadInput              65  a file is damaged, contradicts itself, or holds what cannot be converted
    │   └── InputChanged      65  an input is not the one the unfinished job was planned from
    ├── InputMissing          66  a file that is needed is not there
    ├── NetworkError          69  the network or the remote side does not answer
    ├── CannotCreate          73  the output cannot be created, or something else is in its place
    ├── WriteFailed           74  an I/O error or a full disk; the job can be resumed
    ├── NoResources           74  memory, threads or open files have run out; the job can be resumed
    ├── TryAgain              75  nothing is wrong, run the same command again
    │   ├── Locked            75  another process works on this output
    │   ├── Stopped           75  ``--stop-after`` was reached
    │   └── Interrupted       75  a signal asked to stop; the command line dies of that signal instead of exiting
    ├── NoPermission          77  the operating system refuses access
    └── PlanDiffers           78  an unfinished job for this output was planned differently

A message says what is wrong, where (file, tensor, byte) and, in ``hint``, what to do next.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator

#: how the loader of shared libraries tells that it got no memory
_NO_ROOM_FOR_LIBRARY = ".*(?:failed to map segment|[Cc]annot allocate memory).*"


class StreamconvError(Exception):
    """Base of all errors that are shown without a traceback.

    Parameters
    ----------
    message : what is wrong and where, one sentence
    hint : what to do next; printed after the message

    Examples
    --------
    >>> print(UsageError("--ram 1 MiB is too little", "Use --ram 4MiB or more."))
    --ram 1 MiB is too little
      Use --ram 4MiB or more.
    """

    exit_code = 70
    #: whether what is finished is kept to go on with: by the same command, or when what ``hint`` asks for is done
    resumable = False

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        #: bytes finished, bytes in all, bytes made by this run; for reports
        self.progress = (0, 0, 0)

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class UsageError(StreamconvError):
    """The command line, or a combination of options, makes no sense."""

    exit_code = 64


class BadInput(StreamconvError):
    """A file is damaged, contradicts itself, or holds what cannot be converted."""

    exit_code = 65


class InputChanged(BadInput):
    """An input is not the one the unfinished job was planned from."""

    resumable = True


class InputMissing(StreamconvError):
    """A file that is needed is not there."""

    exit_code = 66


class NetworkError(StreamconvError):
    """The network or the remote side does not answer."""

    exit_code = 69
    resumable = True


class CannotCreate(StreamconvError):
    """The output cannot be created, or something else is in its place."""

    exit_code = 73


class WriteFailed(StreamconvError):
    """An I/O error or a full disk; what is committed is kept."""

    exit_code = 74
    resumable = True


class NoResources(StreamconvError):
    """Memory, threads or open files have run out; what is committed is kept."""

    exit_code = 74
    resumable = True


class TryAgain(StreamconvError):
    """Nothing is wrong; run the same command again."""

    exit_code = 75
    resumable = True


class Locked(TryAgain):
    """Another process works on this output."""


class Stopped(TryAgain):
    """``--stop-after`` was reached; everything committed is kept."""


class Interrupted(TryAgain):
    """A signal asked to stop; everything committed is kept.

    Attributes
    ----------
    signum : the signal's number
    """

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(message, "Run the same command again to resume.")
        self.signum = signum


class NoPermission(StreamconvError):
    """The operating system refuses access."""

    exit_code = 77


class PlanDiffers(StreamconvError):
    """An unfinished job for this output was planned differently."""

    exit_code = 78
    resumable = True


def exhausted(error: BaseException) -> NoResources | None:
    """What ran out, where ``error`` is the system's or Python's way to say so, or was raised while such a one was handled.

    >>> print(exhausted(MemoryError()))
    there is not enough memory
      Use fewer --threads or less --ram, or allow more memory (ulimit -v, a container's limit).
    >>> exhausted(ValueError()) is None
    True
    """
    for e in _chain(error):
        found = _ran_out(e)
        if found is not None:
            if found is not e:
                found.__cause__ = error
            return found
    return None


def raise_exhausted(error: BaseException) -> None:
    """Raise what ran out, if something did: then ``error`` tells nothing of the file that it was met at."""
    found = exhausted(error)
    if found is not None:
        raise found from None


def _ran_out(e: BaseException) -> NoResources | None:
    if isinstance(e, NoResources):
        return e
    number = e.errno if isinstance(e, OSError) else None
    where = f"{e.filename}: " if isinstance(e, OSError) and isinstance(e.filename, str) else ""
    if number in (errno.EMFILE, errno.ENFILE):
        return _no_files(where, whole_system=number == errno.ENFILE)
    unloaded = re.search(_NO_ROOM_FOR_LIBRARY, str(e)) if isinstance(e, ImportError | OSError) else None
    if isinstance(e, MemoryError) or number == errno.ENOMEM or unloaded:
        text = unloaded[0] if unloaded else str(e) if isinstance(e, MemoryError) else ""
        what = f" ({text})" if text else ""
        return NoResources(
            f"{where}there is not enough memory{what}",
            "Use fewer --threads or less --ram, or allow more memory (ulimit -v, a container's limit).",
        )
    if isinstance(e, RuntimeError) and re.search(r"can't (start new|allocate) (thread|lock)", str(e)):
        return NoResources(
            f"no more threads can be started ({e})",
            "Use fewer: --threads 1, or allow more threads (ulimit -u, a container's limit) or more memory (ulimit -v).",
        )
    return None


def absent(path: object, hint: str = "") -> InputMissing:
    """The error of an input ``path`` that is not there, or is a link to what is not; ``hint`` is for the former.

    >>> absent("model.gguf")
    InputMissing('model.gguf does not exist')
    """
    try:
        target = os.readlink(str(path))
    except (OSError, ValueError):
        return InputMissing(f"{path} does not exist", hint)
    return InputMissing(
        f"{path} is a link to {target}, which does not exist",
        "Links were copied without the files they point to: copy the folder with `cp -rL`, or download the model again.",
    )


def unreadable(path: object, error: OSError | ValueError) -> StreamconvError:
    """The error of an input ``path`` that cannot be opened or read because of ``error``.

    >>> unreadable("model.gguf", FileNotFoundError(2, "No such file or directory"))
    InputMissing('model.gguf does not exist')
    """
    ran_out = exhausted(error)
    if ran_out is not None:
        return ran_out
    if isinstance(error, FileNotFoundError):
        return absent(path)
    if isinstance(error, PermissionError):
        return NoPermission(f"{path} is not readable")
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return InputMissing(f"{path}: the file name is too long")
    return BadInput(f"{path} cannot be read: {(error.strerror if isinstance(error, OSError) else '') or error}")


def _no_files(where: str, whole_system: bool) -> NoResources:
    if whole_system:
        return NoResources(
            f"{where}too many files are open in the whole system", "Wait, or raise its limit (sysctl fs.file-max)."
        )
    try:
        import resource

        most = f"; the limit of this process is {resource.getrlimit(resource.RLIMIT_NOFILE)[0]:,}"
    except (ImportError, OSError):
        most = ""
    return NoResources(
        f"{where}too many files are open{most}",
        "Raise the hard limit (ulimit -Hn, LimitNOFILE= of systemd, docker --ulimit nofile=), or use fewer shards.",
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """``error``, what it was raised from or while handling, and so on."""
    seen: set[int] = set()
    e: BaseException | None = error
    while e is not None and id(e) not in seen:
        seen.add(id(e))
        yield e
        e = e.__cause__ or e.__context__
