"""``tokenizer.ggml.pre``: which of the loaders' splitting rules a byte-level BPE vocabulary wants.

The name is found as llama.cpp's converter finds it: encode a fixed text full of awkward characters, hash the id list,
look the hash up. A match means that vocabulary, merges and splitting are those of a known model. Names and hashes are
in ``models/data/pretokenizers.json``.
"""

from __future__ import annotations

import difflib
import errno
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

from ...errors import BadInput, NoResources, StreamconvError, UsageError, exhausted
from .files import TokenizerFiles

_DATA = Path(__file__).parent.parent / "data" / "pretokenizers.json"
_SCRIPT = Path(__file__).with_name("encode_check.py")
#: a damaged tokenizer can keep the library busy for ever; whole ones take seconds
_TIMEOUT_S = 300

#: what a split pattern contains -> names whose rules contain it too; a hint for people, never a decision
_TRAITS = (
    ("\\p{Lu}", ("gpt-4o", "llama4", "tekken")),
    ("一-龥", ("deepseek-v3", "deepseek-llm")),
    ("\\p{N}{1,3}", ("llama-bpe", "dbrx", "glm4")),
    ("\\p{N}|", ("qwen2", "stablelm2", "deepseek-r1-qwen")),
    ("Digits", ("starcoder", "refact", "smollm", "command-r")),
)


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(_DATA.read_text(encoding="ascii"))
    return table


def known_names() -> list[str]:
    """All names a loader knows, sorted."""
    return list(_table()["names"])


def check_name(name: str) -> str:
    """``name`` if a loader knows it.

    Raises
    ------
    UsageError : it does not; lists near names
    """
    names = known_names()
    if name in names:
        return name
    near = difflib.get_close_matches(name.lower(), names, n=5, cutoff=0.5)
    meant = f"Did you mean {', '.join(near)}? " if near else ""
    raise UsageError(f"no loader knows the pre-tokenizer {name!r}", f"{meant}Names: {', '.join(names)}")


def name_of_ids(ids: Sequence[int]) -> tuple[str | None, str]:
    """Name for the id list of the check text, None if unknown, and its sha256 in hex.

    >>> name_of_ids([1, 2])[0] is None
    True
    """
    digest = hashlib.sha256(("[" + ", ".join(map(str, ids)) + "]").encode("ascii")).hexdigest()
    return _table()["hashes"].get(digest), digest


class Detection:
    """A running encoding of the check text; start it, do something else, ask for ``name``.

    Parameters
    ----------
    files : has tokenizer.json, or vocab.json and merges.txt
    """

    def __init__(self, files: TokenizerFiles) -> None:
        place = files.place("tokenizer.json")
        self._file = files.folder / ("vocab.json" if place is None else "tokenizer.json")
        self._text = place if isinstance(place, bytes) else None
        request = {"text": _table()["check_text"]}
        if place is None:
            request |= {"vocab": str(self._file), "merges": str(files.folder / "merges.txt")}
        elif isinstance(place, Path):
            request["file"] = str(place)
        try:
            self._process = subprocess.Popen(
                [sys.executable, str(_SCRIPT), json.dumps(request)],
                stdin=subprocess.DEVNULL if self._text is None else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        except OSError as e:
            if e.errno == errno.EAGAIN:  # from fork
                what = f"no more processes can be started ({sys.executable})"
                raise NoResources(what, "Allow more (ulimit -u, a container's limit of processes).") from None
            raise exhausted(e) or StreamconvError(f"{sys.executable} cannot be started: {e.strerror}") from None

    def __enter__(self) -> Detection:
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

    def name(self, pre_tokenizer: Any = None, bos: int | None = None, eos: int | None = None) -> str:
        """The pre-tokenizer's name.

        Parameters
        ----------
        pre_tokenizer : tokenizer.json's entry, for the hint when the hash is unknown
        bos, eos : ids to try around the plain encoding: the hash covers special tokens, and a checkpoint whose
            template differs from the known model's in nothing but these is still that model's

        Raises
        ------
        BadInput : the hash is unknown, or the file cannot be used
        """
        answer = self._answer()
        plain: list[int] = answer["plain"]
        _, digest = name_of_ids(answer["ids"])
        for ids in (answer["ids"], plain, *_framed(plain, bos, eos)):
            found, _ = name_of_ids(ids)
            if found is not None:
                return found
        near = candidates(pre_tokenizer)
        like = f"Its rules look like those of: {', '.join(near)}. " if near else ""
        raise BadInput(
            f"{self._file}: no known model splits text like this tokenizer (check text hash {digest})",
            f"Name the pre-tokenizer of the model it was derived from: --pre NAME. {like}"
            f"All names: {', '.join(known_names())}",
        )

    def _answer(self) -> dict[str, Any]:
        try:
            output, _ = self._process.communicate(self._text, timeout=_TIMEOUT_S)
            answer: dict[str, Any] = json.loads(output)
        except subprocess.TimeoutExpired:
            raise BadInput(
                f"{self._file}: encoding one line took more than {_TIMEOUT_S} s", "Name its pre-tokenizer: --pre NAME"
            ) from None
        except ValueError:
            code = self._process.returncode
            raise BadInput(
                f"{self._file} crashes the tokenizers library (exit {code})", "Name its pre-tokenizer: --pre NAME"
            ) from None
        if "no memory" in answer or exhausted(ImportError(answer.get("error", ""))):
            what = answer.get("no memory") or answer["error"]
            raise NoResources(
                f"{self._file}: there is not enough memory to encode one line ({what})",
                "Allow more memory (ulimit -v, a container's limit), or name its pre-tokenizer: --pre NAME",
            )
        if "error" in answer:
            raise BadInput(f"{self._file} cannot be used: {answer['error']}", "Name its pre-tokenizer: --pre NAME")
        return answer


def _framed(plain: list[int], bos: int | None, eos: int | None) -> Iterator[list[int]]:
    first = [] if bos is None else [bos]
    last = [] if eos is None else [eos]
    if first:
        yield first + plain
    if last:
        yield plain + last
        yield first + plain + last


def candidates(pre_tokenizer: Any) -> list[str]:
    """Names whose splitting rules resemble tokenizer.json's ``pre_tokenizer``.

    >>> candidates({"type": "ByteLevel", "use_regex": True})
    ['gpt-2']
    """
    if not pre_tokenizer:
        return []
    text = json.dumps(pre_tokenizer, ensure_ascii=False).replace("\\\\", "\\")
    for needle, names in _TRAITS:
        if needle in text:
            return list(names)
    return ["gpt-2"] if "ByteLevel" in text and '"Split"' not in text else []
