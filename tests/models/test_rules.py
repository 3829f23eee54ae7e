"""Rules: which tensors of a checkpoint make which of a model, and in which order."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest
from row_contract import values_of

from streamconv.errors import BadInput
from streamconv.kit import Constant, split
from streamconv.models.config import Config
from streamconv.models.gguf_names import known_names
from streamconv.models.names import Indices, Templates
from streamconv.models.rules import Names, Rule, bind, experts, rename
from streamconv.rows import Rows

CONFIG = Config({"num_hidden_layers": 2, "num_experts": 11}, {}, {})
HALVES = Rule(
    ("blk.{bid}.ffn_gate.weight", "blk.{bid}.ffn_up.weight"),
    ("h.{bid}.gate_up.weight",),
    lambda rows, _: split(rows[0], [2, 2]),
)


def bound(
    names: Sequence[str], *rules: Rule, arch: str = "none", more: dict[str, str] | None = None
) -> dict[str, Rows]:
    """The tensors that the rules make of tensors of ``names``; the values of each are its number."""
    tensors = {name: Constant(np.full((4, 3), n, np.float32)) for n, name in enumerate(names)}
    made = bind(tensors, Names(arch, rules, more or {}), CONFIG, lambda name: BadInput(f"no place for {name}"))
    return {name: rows for name, rows, _ in made}


def test_experts_are_stacked_in_numeric_order_where_the_last_of_them_is() -> None:
    parts = [f"h.0.experts.{x}.w{n}.weight" for x in sorted(range(11), key=str) for n in (1, 2, 3)]
    found = bound(
        [*parts, "norm.weight"], experts("h.{bid}.experts", down="w1", gate="w2", up="w3"), more={"norm": "output_norm"}
    )
    assert list(found) == [f"blk.0.ffn_{x}_exps.weight" for x in ("down", "gate", "up")] + ["output_norm.weight"]
    up = found["blk.0.ffn_up_exps.weight"]
    assert up.shape == (11, 4, 3)
    assert [int(x) for x in values_of(up)[:, 0, 0]] == [parts.index(f"h.0.experts.{x}.w3.weight") for x in range(11)]


def test_a_missing_expert_is_named() -> None:
    parts = [f"h.1.experts.{x}.{n}.weight" for x in range(11) for n in "abc" if (x, n) != (4, "b")]
    with pytest.raises(BadInput, match=r"no tensor 'h\.1\.experts\.4\.b\.weight'"):
        bound(parts, experts("h.{bid}.experts", down="a", gate="b", up="c"))
    with pytest.raises(BadInput, match=r"has 5 experts .* says 11"):
        bound([f"h.0.experts.{x}.{n}.weight" for x in range(5) for n in "abc"],
              experts("h.{bid}.experts", down="a", gate="b", up="c"))  # fmt: skip


def test_a_source_that_is_not_there_is_named() -> None:
    both = Rule(("x",), ("a.{bid}.weight", "b.{bid}.weight"), lambda rows, _: rows[:1])
    with pytest.raises(BadInput, match=r"no tensor 'b\.3\.weight'"):
        bound(["a.3.weight"], both)


def test_one_tensor_becomes_several_in_the_order_of_the_rule() -> None:
    found = bound(["h.1.gate_up.weight", "h.0.gate_up.weight"], HALVES)
    assert list(found) == [f"blk.{b}.ffn_{x}.weight" for b in (1, 0) for x in ("gate", "up")]


def test_what_is_made_from_nothing_comes_first_in_every_block_that_has_it() -> None:
    def made(block: str) -> Rule:
        return Rule((f"{block}x",), (), lambda *_: [Constant(np.ones(3, np.float32))], lambda _, bid: bid != 0)

    assert list(bound(["a.weight"], made("blk.{bid}."), made(""), rename("a.weight", "b"))) == ["blk.1.x", "x", "b"]


def test_where_a_rule_does_not_hold_the_table_does() -> None:
    only_first = Rule(("special",), ("a.{bid}.w.weight",), when=lambda _, bid: bid == 0)
    found = bound(["a.0.w.weight", "a.1.w.weight"], only_first, more={"a.{bid}.w": "blk.{bid}.w"})
    assert list(found) == ["special", "blk.1.w.weight"]


def test_a_name_may_have_a_suffix_or_none() -> None:
    more = {"h.{bid}.A_log": "blk.{bid}.ssm_a", "h.{bid}.dt_bias": "blk.{bid}.ssm_dt.bias"}
    names = ["h.0.A_log", "h.0.dt_bias", "h.1.A_log.weight"]
    assert list(bound(names, more=more)) == ["blk.0.ssm_a", "blk.0.ssm_dt.bias", "blk.1.ssm_a.weight"]
    with pytest.raises(BadInput, match=r"no place for h\.0\.B_log"):
        bound(["h.0.B_log"], more=more)


def test_a_number_of_a_template_is_meant_as_it_stands() -> None:
    templates = Templates([("b.{bid}.layer.1.{x}.w", "second"), ("b.{bid}.layer.0.{x}.w", "first")])
    assert templates.find("b.7.layer.0.12.w") == [("first", Indices(7, 12))]
    assert templates.find("b.7.layer.2.12.w") == templates.find("b.7.layer.one.12.w") == []


def test_names_are_those_of_the_gguf_package() -> None:
    import gguf

    for arch in ("llama", "qwen3moe", "gemma3", "bert", "mamba", "t5"):
        number = next(n for n, name in gguf.MODEL_ARCH_NAMES.items() if name == arch)
        reference = gguf.TensorNameMap(number, 3)
        names = Names(arch, (), {})
        checked = 0
        for template, target in known_names(arch):
            for suffix in ("", ".weight", ".bias"):
                name = template.format(bid=2) + suffix
                wanted = reference.get_name(name, try_suffixes=(".weight", ".bias"))
                found = names.renamed(name)
                assert found is not None
                assert found[0] == wanted, f"{name}, {target}"
                checked += 1
        assert checked > 100
    assert list(known_names("an architecture of the future")) == []


def test_the_package_is_not_imported_for_its_tables() -> None:
    code = (
        "import sys; from streamconv.models.gguf_names import known_names; assert list(known_names('llama')); "
        "sys.exit('gguf' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
