"""The examples in docstrings are run: what a reader copies from there works."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest

import streamconv

PACKAGE = Path(streamconv.__file__).resolve().parent
WITH_EXAMPLES = [
    ".".join(["streamconv", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__")
    for path in sorted(PACKAGE.rglob("*.py"))
    if ">>>" in path.read_text()
]


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_show_what_happens(
    name: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As in a checkout, but what examples write is gone afterwards.
    (tmp_path / "examples").symlink_to(tiny_model.parent)
    monkeypatch.chdir(tmp_path)
    failed, tried = doctest.testmod(import_module(name))
    assert tried
    assert not failed, "see the captured output"


@pytest.mark.parametrize("name", [n for n in streamconv.__all__ if callable(getattr(streamconv, n))])
def test_every_public_name_has_an_example(name: str) -> None:
    assert ">>>" in (getattr(streamconv, name).__doc__ or "")
