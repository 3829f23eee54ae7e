"""How much of a text a model is run over, and with which tokens."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from streamconv.conversion import open_runnable
from streamconv.errors import BadInput
from streamconv.evaluation import request as requests
from streamconv.evaluation.request import Request, chunks_of, enough


def _with_experts(n: int, used: int) -> Any:
    layers = [SimpleNamespace(n_experts_used=0), SimpleNamespace(n_experts_used=used)]
    return SimpleNamespace(router=SimpleNamespace(n_experts=n), layers=layers)


def test_models_of_many_experts_are_run_over_more_tokens() -> None:
    assert enough(SimpleNamespace(router=None, layers=[])) == 40 * 512  # type: ignore[arg-type]
    assert enough(_with_experts(128, 8)) == 32_000
    assert enough(_with_experts(256, 8)) == 64_000
    assert enough(_with_experts(4, 2)) == 40 * 512


def test_chunks_are_as_many_as_are_enough_unless_they_are_stated(data: Path) -> None:
    model, _ = open_runnable(data / "checkpoints" / "mistral-spm" / "hf")
    text = b"the model of a column " * 3000

    def n_chunks(**told: Any) -> int:
        return len(chunks_of(model, "m", text, Request(Path("t"), 256, **told)).inputs)

    assert n_chunks() == 80
    assert n_chunks(n_chunks=3) == 3
    assert n_chunks(n_chunks=-1) > 80


def test_one_line_end_at_the_end_of_a_text_is_no_part_of_it(data: Path) -> None:
    model, _ = open_runnable(data / "checkpoints" / "mistral-spm" / "hf")
    tokens = [
        requests.tokens_of(model, "m", text, Request(Path("t")))
        for text in (b"a column", b"a column\n", b"a column\n\n")
    ]
    assert tokens[0] == tokens[1] != tokens[2]
    assert tokens[0][1] == tokens[0][0][0]  # begins with what begins texts


@pytest.mark.parametrize("name", ["mistral-spm", "gemma1"])
def test_a_long_text_has_the_same_tokens_where_only_its_beginning_is_used(
    data: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    model, _ = open_runnable(data / "checkpoints" / name / "hf")
    text = "the model  of a cölumn \U0001f600\n\n matters 12345 €".encode() * 300 + b" " * 500 + b"the end\n"
    whole, bos = requests.tokens_of(model, "m", text, Request(Path("t"), 8, n_chunks=-1))
    seen: list[int] = []
    first = requests.open_tokenizer

    def told(keys: Any) -> Any:
        found = first(keys)
        encode = found.encode
        monkeypatch.setattr(found, "encode", lambda text, **how: seen.append(len(text)) or encode(text, **how))
        return found

    monkeypatch.setattr(requests, "open_tokenizer", told)
    monkeypatch.setattr(requests, "_BEHIND", 32)
    for n_chunks in (1, *range(2, 300, 9), 5000):
        seen.clear()
        how = Request(Path("t"), 8, n_chunks=n_chunks, skip=n_chunks % 3)
        assert requests.tokens_of(model, "m", text, how) == (whole[: 8 * (how.skip + max(2, n_chunks)) + 1], bos)
        assert seen[-1] < 16 * 8 * (8 * (how.skip + max(2, n_chunks)) + 33)
    assert seen[-1] == len(text) - 1


def test_models_whose_texts_end_with_a_token_are_refused(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = open_runnable(data / "checkpoints" / "mistral-spm" / "hf")
    monkeypatch.setattr(requests, "open_tokenizer", lambda keys: SimpleNamespace(add_eos=True))
    with pytest.raises(BadInput, match="m: its tokenizer ends every text with a token"):
        chunks_of(model, "m", b"text", Request(Path("t")))
