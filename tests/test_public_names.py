"""What users import and catch: the package's names and the tree of errors are as they are described."""

from __future__ import annotations

import ast
import re

import pytest
from package_source import PACKAGE, files, nodes

import streamconv
from streamconv import cli, errors
from streamconv.errors import StreamconvError


def test_the_package_shows_its_public_names_and_no_others() -> None:
    assert [name for name in dir(streamconv) if not name.startswith("_")] == sorted(streamconv.__all__)
    for name in streamconv.__all__:
        assert getattr(streamconv, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        streamconv.nothing


def described() -> list[tuple[int, str, int]]:
    """Depth, name and exit code of each line of the tree in the module's docstring."""
    found = re.findall(r"^([ │├└─]+)(\w+) +(\d+)  ", errors.__doc__ or "", re.MULTILINE)
    return [(len(indent) // 4 - 1, name, int(code)) for indent, name, code in found]


def actual(cls: type[StreamconvError] = StreamconvError, depth: int = 0) -> list[tuple[int, str, int]]:
    """The same of the classes, parents before their children, in the order in which they are defined."""
    found = [(depth, cls.__name__, cls.exit_code)]
    for child in cls.__subclasses__():
        if child.__module__ == errors.__name__:
            found += actual(child, depth + 1)
    return found


def test_the_tree_that_the_errors_describe_is_the_tree_they_form() -> None:
    assert described() == actual()


def test_an_error_that_is_defined_elsewhere_exits_as_its_parent_in_the_tree() -> None:
    names = {name for _, name, _ in actual()}
    for path in files():
        if path.name == "errors.py" and path.parent == PACKAGE:
            continue
        for node in nodes(path):
            if isinstance(node, ast.ClassDef) and names & {ast.unparse(b).rpartition(".")[2] for b in node.bases}:
                own = {ast.unparse(t) for n in node.body if isinstance(n, ast.Assign) for t in n.targets}
                assert not own & {"exit_code", "resumable"}, f"{path.name}: {node.name} belongs in errors.py"


def test_the_help_of_every_command_explains_every_exit_code() -> None:
    told = [int(code) for code in re.findall(r"\b(\d+) [a-zA-Z]", cli._EPILOG.partition("\n\n")[0])]
    codes = {code for _, _, code in actual()}
    assert sorted(told) == sorted({0, *codes})
