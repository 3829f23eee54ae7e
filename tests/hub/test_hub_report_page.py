"""Pages of conversions whose source is on the hub: it is read again for them, from here and from nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest
from hub_cases import MODEL
from page_reader import read_page, rows
from running import Run
from server import Hub

ALL = "Every tensor, in the order of the file"


@pytest.mark.slow
def test_a_page_is_that_of_the_folder_and_fetches_nothing_more(
    hub: Hub, here: Run, tiny_model: Path, tmp_path: Path, cache: Path
) -> None:
    page, own = tmp_path / "hub.html", tmp_path / "folder.html"
    command = ["convert", MODEL, tmp_path / "x.gguf", "--type", "q8_0", "--report", page]
    refused = here(*command, "--evict")
    assert (refused.code, "which --evict frees" in refused.err) == (64, True)
    assert here(*command).code == 0
    first = rows(read_page(page.read_text()), ALL)
    hub.forget()
    assert here(*command).code == 0
    assert here("convert", tiny_model, tmp_path / "y.gguf", "--type", "q8_0", "--report", own).code == 0
    assert hub.requests == []
    found = rows(read_page(page.read_text()), ALL)
    assert first == found == rows(read_page(own.read_text()), ALL)
    assert sum(row["Error"].startswith("0.5") for row in found) > 30


def test_of_a_finished_output_whose_source_is_gone_the_page_says_so(here: Run, tmp_path: Path) -> None:
    page = tmp_path / "hub.html"
    command = ["convert", MODEL, tmp_path / "x.gguf", "--type", "q8_0"]
    assert here(*command, "--evict").code == 0
    assert here(*command, "--report", page).code == 0
    body = read_page(page.read_text())
    assert {row["Error"] for row in rows(body, ALL)} == {"–"}
    assert "its source is no longer on this machine" in body.text
