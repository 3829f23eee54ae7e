"""YAML of recipes and model cards: what would take too much is refused, and the worst of what is read takes little."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
import yaml_cases

from streamconv.errors import BadInput
from streamconv.merging.yaml_text import read_documents
from streamconv.models.general import general_metadata
from streamconv.sources.checkpoint import Checkpoint
from streamconv.sources.hostile_yaml import NotYaml, parse_documents

#: stopped by the count that stops "many values"
MANY = ("many nested values", "many documents")


def taken(*names: str) -> list[dict[str, Any]]:
    """What each case took in a process of its own: seconds of processor and MiB of memory."""
    done = subprocess.run(
        [sys.executable, yaml_cases.__file__, *names], capture_output=True, text=True, check=True, timeout=200
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in MANY else n for n in yaml_cases.REFUSED]
)
def test_what_takes_too_much_is_refused_by_name(name: str) -> None:
    text, said = yaml_cases.REFUSED[name]
    with pytest.raises(NotYaml, match=said):
        parse_documents(text)


def cost_is_small(*names: str) -> None:
    for name, found in zip(names, taken(*names), strict=True):
        assert found["seconds"] < 8, name  # below 2.5 on a machine of 2024
        assert found["grown_mib"] < 200, name


@pytest.mark.slow
def test_the_worst_that_is_refused_takes_little() -> None:
    cost_is_small("many nested values", "many documents", "brackets", "merge keys that grow", "a number of sixties")


@pytest.mark.slow
def test_whatever_is_read_or_refused_takes_little() -> None:
    cost_is_small(*yaml_cases.READ, *yaml_cases.REFUSED)


def test_a_card_with_the_results_of_a_hundred_benchmarks_is_read() -> None:
    entry = "  - task:\n      type: Classification\n    dataset:\n      type: a/b\n      name: {}\n"
    entry += "    metrics:\n    - type: f\n      value: 1.5\n"
    text = "license: mit\nmodel-index:\n- name: x\n  results:\n" + "".join(entry.format(i) for i in range(1000))
    assert len(text) > 100_000
    ((card,), _) = parse_documents(text)
    assert card == yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))


@pytest.mark.parametrize(
    "text",
    [
        "a: &x {p: 1}\nb: {<<: *x, q: 2}\nc: [*x, *x]", "a: [1, 2.5, 0x1f, 1:30, .inf, ~, yes, 2001-01-01]", "--- 1\n---\n- 2\n",
        "%YAML 1.1\n---\na: 1\n...\n---\nb: |\n  text\n", "", "# nothing", "? [a, b]\n: c", "a: !!set {x, y}",
    ],
)  # fmt: skip
def test_what_is_read_is_what_yaml_reads(text: str) -> None:
    try:
        wanted = list(yaml.safe_load_all(text))
    except yaml.YAMLError:
        with pytest.raises(NotYaml):
            parse_documents(text)
    else:
        assert parse_documents(text)[0] == wanted


@pytest.mark.parametrize(
    "name",
    ["merge keys that double", "an alias in itself", "brackets", "a large file", "a number", "a truth that is none"],
)
def test_a_card_that_is_refused_is_a_note_and_a_recipe_an_error(name: str, tmp_path: Path) -> None:
    text, _ = yaml_cases.REFUSED[name]
    (tmp_path / "README.md").write_text(f"---\n{text}\n---\n")
    notes: list[str] = []
    general_metadata(Checkpoint(tmp_path, {}, {}, ()), warnings=notes)
    assert len(notes) == 1
    assert notes[0].startswith("README.md's front matter is ignored: it ")
    assert "\n" not in notes[0]
    recipe = tmp_path / "recipe.yml"
    recipe.write_text(text)
    with pytest.raises(BadInput, match=r"recipe\.yml (is not valid YAML|has|nests|describes)"):
        read_documents(recipe)


def test_a_card_of_any_length_without_front_matter_is_nothing_to_note(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("text\n" * 1_000_000)
    notes: list[str] = []
    general_metadata(Checkpoint(tmp_path, {}, {}, ()), warnings=notes)
    assert notes == []


@pytest.mark.parametrize(
    "text", ["ab\n" * 1_000_000, "x" * (15 << 20), "\U0001f600" + "\t" * (15 << 20)], ids=["lines", "a line", "tabs"]
)
def test_a_card_that_is_nothing_but_front_matter_is_ignored_at_once(text: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(f"---\n{text}")
    notes: list[str] = []
    began = time.process_time()
    general_metadata(Checkpoint(tmp_path, {}, {}, ()), warnings=notes)
    assert time.process_time() - began < 5
    (note,) = notes
    assert re.search(r"ignored: it has \d+ bytes, over the limit of 1048576$", note)
