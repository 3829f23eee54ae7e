"""The pages say what is there: commands parse, flags and methods exist, links lead somewhere."""

from __future__ import annotations

import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streamconv import errors
from streamconv.cli import make_parser
from streamconv.merging.methods import METHODS

ROOT = Path(__file__).resolve().parents[1]
#: those that people write; docs/cli.md is made from the parser
PAGES = [ROOT / "README.md", *(p for p in sorted((ROOT / "docs").glob("*.md")) if p.name != "cli.md")]
page = pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)


def commands() -> dict[str, Any]:
    (chosen,) = (a for a in make_parser()._actions if a.dest == "command")
    assert isinstance(chosen.choices, dict)
    return chosen.choices


def invocations(text: str) -> Iterator[list[str]]:
    """The words after ``streamconv`` wherever a page calls a command of it; what explains the call is left out."""
    for found in re.findall(rf"\bstreamconv\"? ((?:{'|'.join(commands())})\b[^`|#\n]*)", text):
        call = re.split(r" {2,}|; ", found)[0].replace("…", "")
        yield shlex.split(call)


def test_every_command_is_shown_somewhere() -> None:
    shown = {words[0] for path in PAGES for words in invocations(path.read_text())}
    assert shown == set(commands())


@page
def test_every_command_line_on_a_page_is_one_that_the_program_takes(path: Path) -> None:
    for words in invocations(path.read_text()):
        if len(words) > 1:  # else it is a name in a sentence
            make_parser().parse_args(words)


@page
def test_every_flag_on_a_page_exists(path: Path) -> None:
    subs = commands().values()
    for sub in subs:
        sub.format_help()  # learns of the options that targets add
    known = {flag for sub in subs for flag in sub._option_string_actions}
    told = set(re.findall(r"`(--[a-z][a-z0-9-]*)", path.read_text()))
    assert told <= known


@page
def test_links_lead_to_files(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
        assert (path.parent / target).exists(), target


def test_the_table_of_merge_methods_has_a_row_for_every_method_and_no_other() -> None:
    table = (ROOT / "docs" / "merging.md").read_text().partition("## Methods")[2].partition("\n\n")[0]
    rows = [row.split("|")[1] for row in table.strip().splitlines()[2:]]
    assert sorted(name for row in rows for name in re.findall(r"`(\w+)`", row)) == sorted(METHODS)


def test_the_tables_of_measurements_are_those_of_the_recorded_results() -> None:
    readme, others = runpy.run_path(str(ROOT / "bench" / "run.py"))["pages"]()
    assert (ROOT / "README.md").read_text().partition("<!-- bench -->\n")[2].partition("<!-- /bench -->")[0] == readme
    assert (ROOT / "docs" / "measured.md").read_text() == others


def test_the_table_of_families_is_that_of_the_code() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "make_families.py"))["page"]()
    assert (ROOT / "README.md").read_text() == made


#: exit codes after which the same command may do better by itself
RETRY = {69, 74, 75}


def exit_codes() -> set[int]:
    return {e.exit_code for e in vars(errors).values() if isinstance(e, type) and issubclass(e, errors.StreamconvError)}


def test_whoever_calls_the_program_is_told_what_to_do_with_every_exit_code() -> None:
    table = (ROOT / "docs" / "headless.md").read_text().partition("| exit code |")[2].partition("\n\n")[0]
    told = [int(code) for row in table.splitlines()[2:] for code in re.findall(r"\d+", row.split("|")[1])]
    assert sorted(told) == sorted({0, *exit_codes()})


@pytest.mark.parametrize("name", ["cli.md", "systemd/streamconv@.service"])
def test_systemd_is_told_of_every_exit_code_that_no_restart_would_mend(name: str) -> None:
    (codes,) = re.findall(r"RestartPreventExitStatus=([\d ]+)", (ROOT / "docs" / name).read_text())
    assert {int(code) for code in codes.split()} == exit_codes() - RETRY
