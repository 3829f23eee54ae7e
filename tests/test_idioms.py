"""The idioms that ``make lint`` bans are found wherever a file speaks in words, and the package is free of them."""

from __future__ import annotations

import runpy
from pathlib import Path

import messages
import pytest

LINT = runpy.run_path(str(Path(__file__).parent / "docstrings.py"), run_name="lint")


@pytest.mark.parametrize(
    "text",
    [
        '"""The work of whoever calls."""\n',
        "x = 1  # nobody waits\n",
        'error = f"{x} is none"\n',
        '"""Started\nanew."""\n',
        '"stop in order after 90s"\n',
        "#: the lock at last\n",
        'f"as they lie in {x}"\n',
        "'of no account'\n",
        'f"{x} vouches"\n',
        "# Somebody else\n",
    ],
)
def test_a_banned_idiom_is_found_in_comments_strings_and_docstrings(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_text(text)
    assert len(list(LINT["idioms"](path))) == 1


def test_a_banned_idiom_is_found_on_a_page(tmp_path: Path) -> None:
    path = tmp_path / "x.md"
    path.write_text("fine\n\nit is for whoever reads\n")
    assert list(LINT["idioms"](path)) == [f"{path}:3 says 'whoever'"]


@pytest.mark.parametrize(
    "text", ["y = x is None\n", "def anew(nobody): ...\n", '"None where there is none"\n', "# added in order\n"]
)
def test_identifiers_and_plain_words_are_not_idioms(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_text(text)
    assert not list(LINT["idioms"](path))


def test_no_file_says_a_banned_idiom() -> None:
    assert not [found for path in [*LINT["PACKAGE"].rglob("*.py"), *LINT["PAGES"]] for found in LINT["idioms"](path)]


def test_the_list_of_messages_has_hints_and_help() -> None:
    said = {(taker, text) for _, _, taker, text in messages.all_texts()}
    assert ("Stopped", "Run the same command again to resume.") in said
    assert ("Flag", "print errors only") in said
    assert ("", "convert SRC to OUT; the same command again resumes where it stopped") in said
