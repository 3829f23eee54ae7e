"""``compare`` and ``perplexity`` with ``--work``: ended anywhere, the same command goes on and tells the same."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from streamconv import evaluating
from streamconv.engine import files
from streamconv.errors import Stopped, WriteFailed
from streamconv.evaluation import comparing, keeping, matrix
from streamconv.evaluation.walk import Walk

SLOW = pytest.mark.slow
HOW = ("-c", "32", "--chunks", "40", "--threads", "1", "--quiet")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = random.Random(1)
    words = ["model", "matters", "the", "of", "a column", "layer", "much", "how"]
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(" ".join(rng.choice(words) for _ in range(600)))
    return path


@pytest.fixture
def other(small: Path, tmp_path: Path) -> Path:
    """A model of a folder of its own, which may be changed."""
    path = tmp_path / "other"
    shutil.copytree(small, path)
    (path / "model.safetensors").chmod(0o644)
    return path


def change(model: Path, tensor: str = "model.layers.1.mlp.down_proj.weight") -> None:
    """Give a tensor of the model other numbers at its beginning, in place."""
    weights = model / "model.safetensors"
    data = weights.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    at = start + json.loads(data[8:start])[tensor]["data_offsets"][0]
    weights.write_bytes(data[:at] + bytes(100) + data[at + 100 :])


def test_a_comparison_that_is_stopped_goes_on_and_tells_the_same(
    here: Any, small: Path, other: Path, text: Path, tmp_path: Path
) -> None:
    change(other)
    command = ("compare", small, other, "--text", text, *HOW, "--json")
    want, work = here(*command).out, tmp_path / "night"
    before = sorted(tmp_path.iterdir())
    assert json.loads(want)["kl_divergence"]["mean"] > 0
    kept = (*command, "--work", work)
    assert here(*kept).out == want
    assert sorted(tmp_path.iterdir()) == before
    n_runs = 1
    while (found := here(*kept, "--stop-after", "0.001s")).code == 75:
        status = here("status", work, "--json").events[0]
        assert (status["type"], status["chunks_done"], status["chunks"]) == ("comparison", n_runs, 2 * 2 + 2)
        assert f"night is unfinished: {n_runs} of 6 chunks" in here("status", work).out
        n_runs += 1
    assert (found.code, found.out, n_runs) == (0, want, 6)
    assert sorted(tmp_path.iterdir()) == before


@SLOW
def test_perplexity_goes_on_too(here: Any, small: Path, text: Path, tmp_path: Path) -> None:
    command = ("perplexity", small, "--text", text, *HOW)
    kept = (*command, "--work", tmp_path / "p")
    assert here(*kept, "--stop-after", "0.001s").code == 75
    assert here(*kept).out == here(*command).out
    assert list(tmp_path.iterdir()) == []


def test_a_comparison_with_a_page_is_kept_beside_the_page(here: Any, small: Path, text: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    command = ("compare", small, small, "--text", text, *HOW, "--report", page)
    assert here(*command, "--stop-after", "0.001s").code == 75
    assert [path.name for path in tmp_path.iterdir()] == ["page.html.streamconv"]
    assert here(*command).code == 0
    assert list(tmp_path.iterdir()) == [page]


def test_another_command_does_not_take_the_work_over_unless_it_is_forced(
    here: Any, small: Path, text: Path, tmp_path: Path
) -> None:
    kept = ("--text", text, *HOW, "--work", tmp_path / "w")
    assert here("perplexity", small, *kept, "--stop-after", "0.001s").code == 75
    refused = here("compare", small, small, *kept)
    assert refused.code == 78
    assert "start over with --force" in refused.err
    assert here("compare", small, small, *kept, "--force").code == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("flag", ["--force", "--update", "--stop-after"])
def test_what_is_of_kept_work_is_refused_where_nothing_is_kept(here: Any, small: Path, text: Path, flag: str) -> None:
    found = here("perplexity", small, "--text", text, flag, *(["1s"] if flag == "--stop-after" else []))
    assert found.code == 64
    assert f"{flag} has no effect without --work" in found.err


@SLOW
def test_a_long_run_of_which_nothing_is_kept_says_so(
    here: Any, small: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing, "_LONG", 1e6)
    loud = ("perplexity", small, "--text", text, *HOW[:-1])
    assert "with --work NAME it would go on" in here(*loud).err
    assert "--work" not in here(*loud, "--work", tmp_path / "w").err


def _printing_fails(facts: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_result_that_cannot_be_printed_is_kept(
    here: Any, small: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("compare", small, small, "--text", text, *HOW, "--json")
    want, kept = here(*command).out, (*command, "--work", tmp_path / "w")
    with monkeypatch.context() as patch:
        patch.setattr(evaluating, "say_json", _printing_fails)
        assert here(*kept).code == 74
    with monkeypatch.context() as patch:
        patch.setattr(Walk, "layer", None)  # nothing is left to be run
        assert here(*kept).out == want
    assert list(tmp_path.iterdir()) == []


def test_work_goes_only_when_what_was_printed_to_a_file_is_durable(
    here: Any, small: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = ("perplexity", small, "--text", text, *HOW, "--work", tmp_path / "w")
    real = files.sync_data

    def fails(fd: int, path: Path, mapping: Any = None) -> None:
        if path == Path("stdout"):
            raise WriteFailed("the disk did not confirm")
        real(fd, path, mapping)

    with monkeypatch.context() as patch:
        patch.setattr(files, "sync_data", fails)
        assert here(*kept).code == 74  # stdout is a file here
    assert [path.name for path in tmp_path.iterdir()] == ["w.streamconv"]
    assert here(*kept).code == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "changed", ["model.norm.weight", pytest.param("model.layers.0.mlp.up_proj.weight", marks=SLOW)]
)
def test_models_that_were_touched_are_gone_on_with_and_those_that_were_changed_are_not(
    here: Any, small: Path, other: Path, text: Path, tmp_path: Path, changed: str
) -> None:
    command = ("compare", small, other, "--text", text, *HOW, "--json")
    kept = (*command, "--work", tmp_path / "w")
    want = here(*command).out
    for _ in range(3):
        assert here(*kept, "--stop-after", "0.001s").code == 75
    os.utime(other / "model.safetensors", ns=(1, 1))
    assert here(*kept, "--stop-after", "0.001s").code == 75
    change(other, changed)
    refused = here(*kept)
    assert refused.code == 65
    assert "was changed after the unfinished job" in refused.err
    found = here(*kept, "--update").out
    assert found == here(*command).out != want


def test_what_heads_said_of_layers_before_they_changed_does_not_count(
    here: Any, small: Path, other: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("compare", small, other, "--text", text, *HOW, "--json")
    kept = (*command, "--work", tmp_path / "w")
    with monkeypatch.context() as patch:
        patch.setattr(evaluating, "say_json", _printing_fails)
        assert here(*kept).code == 74
    change(other)
    # The first run makes the layer again and is killed when its states are durable; the next must not take all for done.
    with monkeypatch.context() as patch:
        patch.setattr(keeping.Kept, "table", _stopped)
        assert here(*kept, "--update").code == 75
    assert here(*kept).out == here(*command).out


def _stopped(*args: object, **kwargs: object) -> None:
    raise Stopped("stopped here")


def test_a_matrix_takes_no_entry_of_the_head_from_before_a_layer_changed(
    here: Any, other: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("--text", text, *HOW, "--process-output", "--no-ppl")
    with monkeypatch.context() as patch:
        patch.setattr(matrix, "finish", _stopped)
        assert here("imatrix", other, tmp_path / "m.gguf", *command).code == 75
    change(other)
    assert here("imatrix", other, tmp_path / "m.gguf", *command, "--update").code == 0
    fresh = tmp_path / "fresh" / "m.gguf"
    fresh.parent.mkdir()
    assert here("imatrix", other, fresh, *command).code == 0
    assert (tmp_path / "m.gguf").read_bytes() == fresh.read_bytes()


def test_work_in_the_place_of_what_is_read_is_refused(here: Any, other: Path, text: Path) -> None:
    place = other.with_name("a.streamconv")
    other.rename(place)
    found = here("perplexity", place, "--text", text, *HOW, "--work", place.with_suffix(""))
    assert found.code == 64
    assert "is or contains" in found.err
