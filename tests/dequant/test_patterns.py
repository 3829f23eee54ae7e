"""Patterns of config.json: they say what Python's engine says, and none of them takes long."""

from __future__ import annotations

import re
import time
from random import Random

import pytest

from streamconv.dequant.patterns import NotReadable, Patterns

NAMES = [
    "model.layers.0.mlp.gate_proj",
    "model.layers.12.self_attn.q_proj",
    "lm_head",
    "",
    "a.b",
    "aaaa",
    "visual.a-b_1",
]


@pytest.mark.parametrize(
    "pattern",
    [
        r".*", r".*self_attn.*", r"model\.layers\.\d+\.mlp\.(gate|up|down)_proj$", r"^lm_head$", r".*\.(?:q|k|v)_proj",
        r"model\.layers\.(?:[0-9]|1[0-2])\..*", r"(?!.*lm_head).*", r"^(?=.*mlp).*gate", r"a{2,3}$", r"a{4}", r"a{,2}b|a+",
        r"[^a-l]+", r"[\w.]+$", r"\W", r"a*?b?", r"(a|aa)+$", "", "a{x}", r"[]a]+", r"[a-]+", r"(?:)*x",
    ],
)  # fmt: skip
def test_matches_are_those_of_python(pattern: str) -> None:
    for name in NAMES:
        assert Patterns().match(pattern, name) == (re.match(pattern, name) is not None), name


def random_pattern(r: Random, depth: int = 0) -> str:
    kind = r.randrange(7 if depth < 3 else 4)
    if kind == 4:
        inner = "|".join(random_pattern(r, depth + 1) for _ in range(r.choice([1, 2, 3])))
        return f"({r.choice(['', '?:', '?=', '?!'])}{inner})"
    if kind == 5:
        return f"(?:{random_pattern(r, depth + 1)})" + r.choice(["*", "+", "?", "{2}", "{1,2}", "{2,}", "*?"])
    if kind == 6:
        return random_pattern(r, depth + 1) + random_pattern(r, depth + 1)
    return r.choice(["a", "b", ".", "ab", r"\.", "[ab]", "[^a]", r"\d", "^", "$", "a*", "b+", ".*", ".?", "a{1,2}"])


def test_random_patterns_match_what_they_match_in_python() -> None:
    r = Random(1)
    for _ in range(1500):
        pattern = random_pattern(r)
        text = "".join(r.choice("ab.1") for _ in range(r.randrange(7)))
        assert Patterns().match(pattern, text) == (re.match(pattern, text) is not None), (pattern, text)


@pytest.mark.parametrize(
    "pattern", ["(a+)+$", "(a|a)*b", "(((a*)*)*)*b", "a*a*a*a*a*a*a*a*b", "(?:a?){100}b", "(?=(?=a*b)a)*"]
)
def test_what_would_never_end_ends(pattern: str) -> None:
    began = time.process_time()
    assert not Patterns().match(pattern + "$", "a" * 200 + "c")
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    "pattern",
    ["(", ")", "a)", "[a", "*a", "a**", "a{2}{3}", r"(a)\1", "(?P<n>a)", "(?<=a)b", r"\bq", "a{2000}", "[b-a]", "\\",
     "(" * 30 + ")" * 30, "a" * 2000],
)  # fmt: skip
def test_what_is_not_read_is_refused(pattern: str) -> None:
    with pytest.raises(NotReadable):
        Patterns().match(pattern, "a")


def test_all_matches_together_have_a_limit() -> None:
    patterns = Patterns()

    def forever() -> None:
        while True:
            patterns.match("(?:a|ab|b)*c", "ab" * 100)

    with pytest.raises(NotReadable, match="takes too long"):
        forever()
