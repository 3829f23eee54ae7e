"""Questions to the ``tokenizers`` library, each put to it in a process of its own (``encode_check.py``) with bounds.

The library is compiled code that was written for files of friends: some make it panic, some abort, some keep it busy for ever.
"""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from ...errors import BadInput, NoResources, StreamconvError, exhausted

_SCRIPT = Path(__file__).with_name("encode_check.py")
#: whole tokenizers take a second or two of processor time, on a slow machine ten, and half a GiB
_CPU_S, _MEMORY_BYTES = 40, 4 << 30
#: for the caller, whatever else the machine does
_TIMEOUT_S = 300
_SIGXCPU = 24

Q = TypeVar("Q", bound="Question")


class Question:
    """A question that is being answered; ask it, do something else, take the ``answer``.

    Parameters
    ----------
    file : what it is about, for messages
    request : see ``encode_check.py``
    data : what the request says of the standard input
    hint : what to do where there is no answer
    """

    def __init__(self, file: Path, request: Mapping[str, Any], data: bytes | None = None, hint: str = "") -> None:
        self._file, self._data, self._hint = file, data, hint
        bounds = {"cpu_s": _CPU_S, "memory_bytes": _MEMORY_BYTES}
        try:
            self._process = subprocess.Popen(
                [sys.executable, str(_SCRIPT), json.dumps({**request, **bounds})],
                stdin=subprocess.DEVNULL if data is None else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        except OSError as e:
            if e.errno == errno.EAGAIN:  # from fork
                what = f"no more processes can be started ({sys.executable})"
                raise NoResources(what, "Allow more (ulimit -u, a container's limit of processes).") from None
            raise exhausted(e) or StreamconvError(f"{sys.executable} cannot be started: {e.strerror}") from None

    def __enter__(self: Q) -> Q:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def answer(self) -> dict[str, Any]:
        """What the library says.

        Raises
        ------
        BadInput : it refuses the file, does not survive it, or takes too long or too much memory
        NoResources : this process may not have the memory that whole files take
        """
        try:
            output, _ = self._process.communicate(self._data, timeout=_TIMEOUT_S)
            answer: dict[str, Any] = json.loads(output)
        except subprocess.TimeoutExpired:
            raise self._bad(f"keeps the tokenizers library busy for more than {_TIMEOUT_S} s") from None
        except ValueError:
            code = self._process.returncode
            if code == -_SIGXCPU:
                raise self._bad(
                    f"keeps the tokenizers library busy for more than {_CPU_S} s of processor time"
                ) from None
            raise self._bad(f"crashes the tokenizers library (exit {code})") from None
        lacking = "no memory" in answer or exhausted(ImportError(answer.get("error", ""))) is not None
        if lacking and _has_little_memory():
            raise NoResources(
                f"{self._file}: there is not enough memory to ask the tokenizers library",
                f"Allow more memory (ulimit -v, a container's limit). {self._hint}".rstrip(),
            )
        if lacking:
            raise self._bad(f"takes the tokenizers library more than {_MEMORY_BYTES >> 30} GiB of memory")
        if "error" in answer:
            raise self._bad(f"cannot be used: {answer['error']}")
        return answer

    def _bad(self, what: str) -> BadInput:
        return BadInput(f"{self._file} {what}", self._hint)


def _has_little_memory() -> bool:
    """Whether this process may have less than the library is allowed."""
    try:
        import resource
    except ImportError:
        return False
    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    return most != resource.RLIM_INFINITY and most < _MEMORY_BYTES
