"""Regular expressions from files (config.json, adapter_config.json), which say what modules they are about.

Python's own engine tries one way after the other, and a pattern can be written for which it never ends. This one goes through the
name once with all ways at the same time: the places reached so far are the bits of one number, a step shifts them, and a
repetition of characters is an addition that carries through the run of those it allows. Read are literals, classes, groups,
alternatives, repetitions, anchors and lookahead; what remembers what it matched (back references) is refused. What passes for
one character, ``[a-z]`` for one, is left to Python's engine, which has no ways to try there.

Source: the simulation of automata with bits of Baeza-Yates and Gonnet (1992); the addition is Myers' (1992).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable

from .naming import shown

#: far more than patterns of models have
_MAX_CHARACTERS, _MAX_DEPTH, _MAX_REPEATS = 1000, 20, 1000
#: of all patterns on all names of a checkpoint, some seconds; 18 000 modules against a pattern for each of 48 layers take a third
_MAX_STEPS = 4_000_000
#: to read one character of a pattern, of which up to 600 bytes are kept
_READING_STEPS = 24
_BRACES = re.compile(r"\{(\d{0,4})(,?)(\d{0,4})\}")
#: characters that stand for themselves, all of them once
_LITERAL = re.compile(r"(?:[^\\^$.|?*+()\[\]{}]|\\[^\w])+(?![?*+{])")
#: what one character passes: a set, a class, or a literal
_ESCAPE = r"\\[dDwWsS]|\\[^a-zA-Z0-9]"
_ONE = re.compile(rf"\[\^?\]?(?:[^\]\\]|{_ESCAPE})*\]|{_ESCAPE}|[^\\\[]", re.DOTALL)

Test = re.Pattern[str]


class NotReadable(ValueError):
    """A pattern that is none, or that uses what is not supported, or too costly."""


class Text:
    """A name, and where in it are characters that pass a test.

    Parameters
    ----------
    name : what is matched
    spend : counts steps

    Attributes
    ----------
    ends : one bit for each place where ``$`` matches
    """

    def __init__(self, name: str, spend: Callable[[int], None]) -> None:
        self.name = name
        self.ends = 1 << len(name) | (1 << len(name) >> 1 if name.endswith("\n") else 0)
        self._spend = spend
        self._cost = 1 + len(name) // 4096
        self._passing: dict[Test, int] = {}

    def places(self, test: Test) -> int:
        """One bit for each character, set where it passes ``test``."""
        found = self._passing.get(test)
        if found is None:
            self._spend(len(self.name) // 2)
            digits = ["1" if test.match(c) else "0" for c in reversed(self.name)]
            found = self._passing[test] = int("".join(digits) or "0", 2)
        return found

    def step(self) -> None:
        """Count a step, which handles numbers as long as the name."""
        self._spend(self._cost)


#: the places that are reached from some places, as bits
Node = Callable[[Text, int], int]


class Patterns:
    """The patterns of one checkpoint; what all of them together take is limited."""

    def __init__(self) -> None:
        self._steps = _MAX_STEPS
        self._read: dict[str, Node | NotReadable] = {}
        # Many patterns are asked about one name before the next.
        self._text = Text("", self.spend)

    def match(self, pattern: str, name: str) -> bool:
        """Whether ``name`` begins with what ``pattern`` describes, as ``re.match`` says.

        Raises
        ------
        NotReadable : the pattern is none, or is refused
        """
        if self._text.name != name:
            self._text = Text(name, self.spend)
        self._text.step()
        node = self._read.get(pattern)
        if node is None:
            self.spend(_READING_STEPS * min(len(pattern), _MAX_CHARACTERS))
            node = self._read[pattern] = _compiled(pattern)
        if isinstance(node, NotReadable):
            raise node
        return node(self._text, 1) != 0

    def spend(self, steps: int) -> None:
        """Count what was done."""
        self._steps -= steps
        if self._steps < 0:
            raise NotReadable("takes too long")


def _compiled(pattern: str) -> Node | NotReadable:
    try:
        if len(pattern) > _MAX_CHARACTERS:
            raise NotReadable(f"has {len(pattern)} characters")
        return _Parser(pattern).whole()
    except NotReadable as e:
        return e


# ---- what a pattern is made of


def _one(test: Test) -> Node:
    def run(text: Text, at: int) -> int:
        return (at & text.places(test)) << 1

    return run


def _literal(characters: str) -> Node:
    def run(text: Text, at: int) -> int:
        found, first, end = 0, (at & -at).bit_length() - 1, at.bit_length() - 1 + len(characters)
        place = text.name.find(characters, first, end)
        while place >= 0:
            text.step()
            found |= 1 << place
            place = text.name.find(characters, place + 1, end)
        return (found & at) << len(characters)

    return run


def _run_of(test: Test) -> Node:
    """Any number of characters: adding the places carries from each through the characters that follow and pass."""

    def run(text: Text, at: int) -> int:
        passing = text.places(test)
        return at | ((at & passing) + passing) ^ passing

    return run


def _sequence(nodes: list[Node]) -> Node:
    def run(text: Text, at: int) -> int:
        for node in nodes:
            if not at:
                break
            text.step()
            at = node(text, at)
        return at

    return run


def _either(nodes: list[Node]) -> Node:
    def run(text: Text, at: int) -> int:
        found = 0
        for node in nodes:
            text.step()
            found |= node(text, at)
        return found

    return run


def _repeated(node: Node, least: int, most: int | None) -> Node:
    def run(text: Text, at: int) -> int:
        for _ in range(least):
            text.step()
            at = node(text, at)
        # A place that was reached before has been left in every way already.
        seen, count = at, least
        while at and (most is None or count < most):
            text.step()
            at = node(text, at) & ~seen
            seen |= at
            count += 1
        return seen

    return run


def _ahead(node: Node, wanted: bool) -> Node:
    def run(text: Text, at: int) -> int:
        found = 0
        while at:
            text.step()
            place = at & -at
            if (node(text, place) != 0) == wanted:
                found |= place
            at ^= place
        return found

    return run


def _start(text: Text, at: int) -> int:
    return at & 1


def _end(text: Text, at: int) -> int:
    return at & text.ends


# ---- reading a pattern


class _Parser:
    """Reads one pattern from left to right."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0
        self._depth = 0

    def whole(self) -> Node:
        node = self._alternatives()
        if self._at < len(self._pattern):
            raise NotReadable("has a bracket too many")
        return node

    def _peek(self) -> str:
        return self._pattern[self._at : self._at + 1]

    def _take(self, text: str) -> bool:
        found = self._pattern.startswith(text, self._at)
        self._at += len(text) if found else 0
        return found

    def _alternatives(self) -> Node:
        branches = [self._branch()]
        while self._take("|"):
            branches.append(self._branch())
        return branches[0] if len(branches) == 1 else _either(branches)

    def _branch(self) -> Node:
        nodes: list[Node] = []
        while self._peek() not in ("", "|", ")"):
            literal = _LITERAL.match(self._pattern, self._at)
            if literal is None:
                nodes.append(self._repetition())
            else:
                self._at = literal.end()
                nodes.append(_literal(re.sub(r"\\(.)", r"\1", literal[0], flags=re.DOTALL)))
        return _sequence(nodes)

    def _repetition(self) -> Node:
        atom = self._atom()
        test = None if isinstance(atom, tuple) else atom
        node = atom[0] if isinstance(atom, tuple) else _one(atom)
        counts = self._counts()
        if counts is None:
            return node
        self._take("?")  # how much is taken first does not change what is reached
        if self._peek() in ("*", "+", "?") or (self._peek() == "{" and _BRACES.match(self._pattern, self._at)):
            raise NotReadable("repeats a repetition")
        least, most = counts
        if test is not None and most is None:
            return _sequence([_repeated(node, least, least), _run_of(test)])
        return _repeated(node, least, most)

    def _counts(self) -> tuple[int, int | None] | None:
        for sign, counts in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self._take(sign):
                return counts
        found = _BRACES.match(self._pattern, self._at)
        if found is None or found[0] in ("{}",):
            return None
        self._at = found.end()
        least = int(found[1] or 0)
        most = (int(found[3]) if found[3] else None) if found[2] else least
        if max(least, most or 0) > _MAX_REPEATS or (most is not None and most < least):
            raise NotReadable("repeats too often")
        return least, most

    def _atom(self) -> Test | tuple[Node]:
        """One character, as a test, or something longer."""
        if self._take("("):
            return (self._group(),)
        if self._take("^"):
            return (_start,)
        if self._take("$"):
            return (_end,)
        found = _ONE.match(self._pattern, self._at)
        if found is None:
            raise NotReadable(f"uses {shown(self._pattern[self._at :][:2])}, which is not supported")
        self._at = found.end()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # of sets that may mean something else one day
                return re.compile(found[0])
        except re.error as e:
            raise NotReadable(f"is damaged: {e.msg}") from None

    def _group(self) -> Node:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise NotReadable("nests too deep")
        kind = "?:"
        if self._peek() == "?":
            kind = next((k for k in ("?:", "?=", "?!") if self._take(k)), "")
            if not kind:
                raise NotReadable("uses what is not supported")
        node = self._alternatives()
        if not self._take(")"):
            raise NotReadable("lacks a bracket")
        self._depth -= 1
        return node if kind == "?:" else _ahead(node, kind == "?=")
