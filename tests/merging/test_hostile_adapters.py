"""Adapter configurations that nobody vouches for: patterns and numbers in them cost little, whatever they are."""

from __future__ import annotations

import re
import time
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from test_lora import adapter, applied, base_model, factors

from streamconv.errors import BadInput
from streamconv.merging.lora_adapter import Adapter, Change
from streamconv.merging.module_patterns import ModulePatterns
from streamconv.sources.patterns import Patterns


def adapter_of(config: dict[str, Any], *modules: str) -> Adapter:
    return Adapter("adapter", config, {name: Change(name) for name in modules}, {}, [])


@pytest.mark.parametrize("key", ["rank_pattern", "alpha_pattern"])
@pytest.mark.parametrize("pattern", ["(([a-z_.0-9]+)+)+!", "(a|a)*b", "(.*)*x", "(.*.*)*.*!"])
def test_a_pattern_that_python_would_never_finish_is_matched_at_once(key: str, pattern: str, tmp_path: Path) -> None:
    base_model(tmp_path / "base")
    adapter(tmp_path / "adapter", factors(), **{key: {pattern: 3}})
    began = time.process_time()
    applied(tmp_path)
    assert time.process_time() - began < 5


@pytest.mark.parametrize("key", ["rank_pattern", "alpha_pattern"])
@pytest.mark.parametrize("pattern", ["(?R)b", "(", "x" * 2000, "a{2000}"], ids=["recursion", "open", "long", "often"])
def test_a_pattern_that_is_not_read_is_refused_by_name(key: str, pattern: str, tmp_path: Path) -> None:
    base_model(tmp_path / "base")
    adapter(tmp_path / "adapter", factors(), **{key: {pattern: 3}})
    with pytest.raises(
        BadInput, match=rf"{key} in adapter_config\.json: the pattern {re.escape(repr(pattern[:5])[:-1])}"
    ):
        applied(tmp_path)


@pytest.mark.slow
def test_patterns_that_take_long_together_are_refused() -> None:
    modules = [f"model.layers.{i}.mlp.experts.{k}.up_proj" for i in range(40) for k in range(100)]
    patterns = {f"(?:{i}|a.|.b)*(?:x|y|.z)*q": 1 for i in range(5000)}
    found = adapter_of({"rank_pattern": patterns}, *modules)
    began = time.process_time()
    with pytest.raises(BadInput, match=r"rank_pattern in adapter_config\.json: the pattern .* takes too long"):
        [found.scale(module, 8) for module in modules]
    assert time.process_time() - began < 15  # two seconds, on a slow machine and where lines are traced, too


@pytest.mark.parametrize("escaped", [False, True])
def test_a_rank_for_each_module_of_a_mixture_of_experts_is_looked_up(escaped: bool) -> None:
    modules = [
        f"model.layers.{i}.mlp.experts.{k}.{p}" for i in range(48) for k in range(128) for p in ("up", "down", "gate")
    ]
    ranks = {name.replace(".", r"\.") if escaped else name: 1 + i % 5 for i, name in enumerate(modules)}
    found = adapter_of({"rank_pattern": ranks, "r": 99}, *modules)
    began = time.process_time()
    for i, module in enumerate(modules):
        assert found.scale(module, 1 + i % 5) == 8 / (1 + i % 5)
    assert time.process_time() - began < 10


def test_the_first_pattern_that_matches_is_the_one_that_peft_takes() -> None:
    r = Random(5)
    modules = [
        ".".join(r.choice(("a", "b", "ab", "layers.1", "q_proj")) for _ in range(r.randint(1, 5))) for _ in range(60)
    ]
    parts = [*modules, "q_proj", r"layers\.1", "a.b", r"b\.a", ".*", "a|b", "[ab]+", r"layers\.\d", "(ab)+", "b.*"]
    for _ in range(300):
        texts = list(dict.fromkeys(r.choices(parts, k=r.randint(1, 6))))
        found = ModulePatterns(texts, modules, Patterns())
        for module in r.sample(modules, 10):
            wanted = next((t for t in texts if re.match(rf"(.*\.)?({t})$", module)), None)
            assert found.first(module) == wanted, (texts, module)


@pytest.mark.parametrize(
    "value", [10**400, float("inf"), float("nan"), "8", True, [8], None], ids=lambda v: repr(v)[:9]
)
@pytest.mark.parametrize("key", ["r", "lora_alpha", "rank_pattern", "alpha_pattern"])
def test_a_rank_or_alpha_that_is_no_usable_number_is_refused(key: str, value: Any, tmp_path: Path) -> None:
    base_model(tmp_path / "base")
    adapter(tmp_path / "adapter", factors(), **{key: {".*q_proj": value} if key.endswith("pattern") else value})
    with pytest.raises(
        BadInput, match=rf"{key} in adapter_config\.json .*not a number|json has a number of 401 digits"
    ):
        applied(tmp_path)


def test_an_adapter_without_rank_is_refused(tmp_path: Path) -> None:
    base_model(tmp_path / "base")
    empty = {name: t[:0] if "lora_A" in name else t[:, :0] for name, t in factors().items()}
    assert all(isinstance(t, np.ndarray) for t in empty.values())
    adapter(tmp_path / "adapter", empty, r=0)
    with pytest.raises(BadInput, match=r"has no rows|truncated|shape"):
        applied(tmp_path)
