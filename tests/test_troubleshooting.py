"""Every message on docs/troubleshooting.md is one that the program prints of what the page says is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from troubles import TROUBLES, command

from streamconv.cli import main

PAGE = Path(__file__).resolve().parents[1] / "docs" / "troubleshooting.md"
#: what makes a message -> the message, as the page quotes it
QUOTED = dict(re.findall(r"^```text (\w+)\n(.*?)^```$", PAGE.read_text(), re.M | re.S))


def test_every_trouble_that_can_be_made_is_on_the_page_and_no_message_is_without_its_maker() -> None:
    assert QUOTED.keys() == TROUBLES.keys()
    assert len(re.findall(r"^```text", PAGE.read_text(), re.M)) == len(QUOTED)


@pytest.mark.parametrize("name", QUOTED)
def test_a_message_on_the_page_is_what_the_program_prints(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = command(name)
    capfd.readouterr()
    code = main(words)
    printed = " ".join("".join(capfd.readouterr()).split())
    quoted = " ".join(QUOTED[name].split())
    assert re.search(re.escape(quoted).replace("…", ".+?"), printed), f"{quoted}\n is not in\n{printed}"
    assert (code != 0) == quoted.startswith("streamconv: ")
