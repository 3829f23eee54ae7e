"""Patterns from files: they say what Python's engine says, and none of them takes long."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from random import Random

import pytest

from streamconv.dequant.scheme import Scheme
from streamconv.sources.patterns import NotReadable, Patterns

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
        r"[^a-l]+", r"[\w.]+$", r"[\].\d-]+", "a]", "a{}", r"model\.?layers", r"m.del\.layers\.12*",
        r"\W", r"a*?b?", r"(a|aa)+$", "", "a{x}", r"[]a]+", r"[a-]+", r"(?:)*x",
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
    ["(", ")", "a)", "[a", "*a", "a**", "a{2000}", "(a{40}){40}", "[b-a]", "\\", "(" * 480 + ")" * 480, "a" * 2000,
     "(?R)", "(?1)", "(?P<n>a)(?&n)", "(?|a|b)", r"(?P>n)"],
)  # fmt: skip
def test_what_is_not_read_is_refused(pattern: str) -> None:
    with pytest.raises(NotReadable):
        Patterns().match(pattern, "a")


def test_a_brace_that_is_no_count_stands_for_itself_as_in_python() -> None:
    for pattern in ("(?:abc){e}", "a{i<=2}", r"\{e}", "[{e}]+$", "{s}"):
        for name in ("abc", "abd", "abc{e}", "a{i<=2}", "{e}", "{s}"):
            assert Patterns().match(pattern, name) == (re.match(pattern, name) is not None), (pattern, name)


def test_patterns_for_each_layer_of_a_mixture_of_experts_are_within_the_limit() -> None:
    patterns = Patterns()
    for layer in range(48):
        for module in range(388):
            name = f"model.layers.{layer}.mlp.experts.{module // 3}.{('gate', 'up', 'down')[module % 3]}_proj"
            found = (k for k in range(48) if patterns.match(rf"model\.layers\.{k}\..*", name))
            assert next(found) == layer


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda k: f"{k:06}" + "." * 900, "b"),
        (lambda k: f"(?:{'|' * 400}){{1000}}{k}", "b"),
        (lambda k: "(?:a|aa)+[bc]b$" + "b" * (k % 2), "a" * 60 + "cdb"),
        (lambda k: f"[ab]*{k}", "b" * 10_000_000),
    ],
    ids=["many patterns", "empty alternatives", "many ways", "a long name"],
)
def test_what_takes_long_counts_as_it_takes(
    make: Callable[[int], str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamconv.sources.patterns._MAX_SECONDS", 0.3)
    patterns = Patterns()

    def forever() -> None:
        for k in range(10_000):
            patterns.match(make(k), name)

    began = time.process_time()
    with pytest.raises(NotReadable, match="takes too long"):
        forever()
    assert time.process_time() - began < 5


def test_all_matches_together_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamconv.sources.patterns._MAX_SECONDS", 0.3)
    patterns = Patterns()

    def forever() -> None:
        while True:
            patterns.match("(?:a|ab|b)*c", "ab" * 100)

    with pytest.raises(NotReadable, match="takes too long"):
        forever()


def test_the_first_target_that_fits_a_module_counts_however_many_there_are() -> None:
    def group(bits: int, *targets: str) -> dict[str, object]:
        return {"weights": {"num_bits": bits}, "targets": list(targets)}

    named = [f"model.layers.{k}.mlp" for k in range(3000)]
    groups = [group(8, "Linear"), group(2, "a.b", "re:.*\\.c$"), group(3, *named), group(4, "re:model", "a.c", "Other")]
    scheme = Scheme("compressed-tensors", {"config_groups": dict(enumerate(groups))})
    expected = {"a.b": 2, "a.c": 2, "model.head": 4, "x": 8, **dict.fromkeys(named, 3)}
    assert {name: scheme.weights_of(name)["num_bits"] for name in expected} == expected
