"""What ``check`` says is what llama.cpp said, whole and with anything left out; a header is judged like the file."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from pathlib import Path

import pytest
from recorded import Info, Recorded, all_cases, stored

from streamconv.check import check_gguf, judge
from streamconv.check.table import _entry, architecture, architectures
from streamconv.metadata import Metadata, Value

_PARTS = 8


@cache
def cases(reference: Path) -> dict[str, Recorded]:
    return all_cases(reference)


def disagreements(name: str, case: Recorded, tmp_path: Path) -> list[str]:
    """What the loader and ``check`` see differently."""
    found = []
    for tensor, key, loads in case.verdicts_without():
        path = case.write(tmp_path / "x.gguf", tensor, key)
        errors = [finding.message for finding in check_gguf(path, scan=False) if finding.severity == "error"]
        if bool(errors) == loads:
            what = f"{name} without {tensor or key or 'nothing'}"
            found.append(
                f"{what}: the loader {'takes' if loads else 'refuses'} it, check says {errors[:1] or 'nothing'}"
            )
    return found


@pytest.mark.parametrize("name", sorted(stored()))
def test_a_stored_case_is_judged_as_by_the_loader(name: str, tmp_path: Path) -> None:
    case = stored()[name]
    assert len(list(case.verdicts_without())) > 20
    assert disagreements(name, case, tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("part", range(_PARTS))
def test_every_verdict_of_the_loader_is_foretold(part: int, reference: Path, tmp_path: Path) -> None:
    judged, wrong = 0, []
    for name, case in list(cases(reference).items())[part::_PARTS]:
        if case.verdicts["whole"]:
            judged += len(list(case.verdicts_without()))
            wrong += disagreements(name, case, tmp_path)
    assert judged > 1000
    assert wrong == []


@pytest.mark.slow
def test_every_recorded_architecture_is_known_and_no_case_is_warned_about_for_nothing(reference: Path) -> None:
    for name, case in cases(reference).items():
        if case.arch != "clip" and case.metadata.get("general.type", "model") == "model":
            assert architecture(case.arch) is not None, name
            if case.verdicts["whole"] == "loads":
                told = [f for f in judge(case.metadata, case.tensors) if f.severity == "warning"]
                assert [f.message for f in told if "converters write it for this family" in f.message] in ([], _GROK), (
                    name
                )


#: of the two generations of Grok only the second states its base
_GROK = ["grok.rope.freq_base is absent: the loader assumes 10000, though converters write it for this family"]


@pytest.mark.parametrize("name", sorted(stored()))
def test_a_header_is_judged_as_its_file(name: str, tmp_path: Path) -> None:
    case = stored()[name]
    for tensor, key in (("", ""), (next(iter(case.tensors)), ""), ("", f"{case.arch}.embedding_length")):
        metadata = Metadata({k: value for k, value in case.metadata.items() if k != key})
        tensors = {k: info for k, info in case.tensors.items() if k != tensor}
        assert judge(metadata, tensors) == check_gguf(case.write(tmp_path / "x.gguf", tensor, key), scan=False)


def test_a_vocabulary_and_a_projector_are_not_judged_by_the_table() -> None:
    case = stored()["llama"]
    for metadata, tensors in (
        (case.metadata, {}),
        (Metadata({**dict(case.metadata.items()), "general.type": _text("mmproj")}), case.tensors),
        (Metadata({**dict(case.metadata.items()), "general.architecture": _text("clip")}), case.tensors),
    ):
        assert [f for f in judge(metadata, tensors) if f.severity == "error"] == []


def test_an_unknown_architecture_is_said_to_be_unknown_and_not_refused() -> None:
    case = stored()["llama"]
    metadata = Metadata({**dict(case.metadata.items()), "general.architecture": _text("new-arch")})
    findings = judge(metadata, case.tensors)
    assert [f for f in findings if f.severity == "error"] == []
    assert any("'new-arch' is not one that check knows" in f.message and f.severity == "note" for f in findings)


def test_an_absent_key_is_named_where_a_shape_fails_for_want_of_it() -> None:
    case = stored()["llama"]
    metadata = Metadata({k: v for k, v in case.metadata.items() if k != "llama.feed_forward_length"})
    (error,) = (f for f in judge(metadata, case.tensors) if f.severity == "error")
    assert error.where == "llama.feed_forward_length"
    assert "the loader uses 0, which does not fit the shape of 'blk.0.ffn_gate.weight'" in error.message


def test_the_table_knows_what_llama_cpp_knows_and_stays_small() -> None:
    table = resources.files("streamconv.check").joinpath("loader_tensors.json").read_bytes()
    assert len(table) < 120 << 10
    assert len(architectures()) >= 150
    for name in architectures():
        known = architecture(name)
        assert known is not None
        assert known.tensors


def test_what_an_entry_takes_back_its_model_has() -> None:
    entries = json.loads(resources.files("streamconv.check").joinpath("loader_tensors.json").read_text())[
        "architectures"
    ]
    for name, entry in entries.items():
        if "without" in entry:
            assert set(entry["without"]) <= {row.name for row in _entry(entry["like"])["tensors"]}, name


def _text(plain: str) -> Value:
    return Value("STRING", plain)


def test_a_key_that_converters_write_and_the_loader_does_not_need_is_a_warning() -> None:
    case = stored()["bert-classify"]
    metadata = Metadata({k: v for k, v in case.metadata.items() if k != "bert.attention.causal"})
    told = [f for f in judge(metadata, case.tensors) if f.where == "bert.attention.causal"]
    assert [f.severity for f in told] == ["warning"]


def test_a_mixture_without_experts_and_groups_without_a_choice_are_refused() -> None:
    case = stored()["qwen2moe"]
    none = Metadata({**dict(case.metadata.items()), "qwen2moe.expert_count": Value("UINT32", 0)})
    assert any("expert_count is 0; a qwen2moe model has experts" in f.message for f in judge(none, case.tensors))
    groups = Metadata({**dict(case.metadata.items()), "qwen2moe.expert_group_count": Value("UINT32", 2)})
    assert any("expert_group_used_count is 0 of 2 groups" in f.message for f in judge(groups, case.tensors))


def test_a_wrong_shape_does_not_blame_a_key_that_may_be_absent() -> None:
    case = stored()["falcon-7b"]
    assert "falcon.attention.key_length" not in case.metadata
    name = "blk.0.attn_qkv.weight"
    ne = case.tensors[name].shape
    wrong = {**case.tensors, name: Info((ne[0] + 1, ne[1]), case.tensors[name].type)}
    (error,) = (f for f in judge(case.metadata, wrong) if f.severity == "error")
    assert error.where == name
    assert "of wrong shape" in error.message


def test_a_file_that_is_taken_for_a_draft_is_warned_about() -> None:
    case = stored()["qwen35moe"]
    tensors = {k: info for k, info in case.tensors.items() if k != "blk.0.attn_norm.weight"}
    assert any(
        "next-token-prediction layers only" in f.message and f.severity == "warning"
        for f in judge(case.metadata, tensors)
    )
    assert not any("next-token-prediction layers only" in f.message for f in judge(case.metadata, case.tensors))
