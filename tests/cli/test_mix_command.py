"""Types that fit a size: ``mix`` and ``convert --size``, as a user sees them."""

from __future__ import annotations

import random
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_models import Tensors, changed

import streamconv
from streamconv import sources
from streamconv.errors import Stopped, UsageError
from streamconv.sizing.course import Course

HOW = ("-c", "32", "--chunks", "8")
LAYER = Course.layer
#: bytes of a file, between the smallest and the largest that there are
SIZE = 125_000


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text of about 2000 tokens."""
    rng = random.Random(1)
    words = ["model", "matters", "the", "of", "a column", "layer", "much", "how"]
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(" ".join(rng.choice(words) for _ in range(300)))
    return path


def _types(path: Path) -> dict[str, str]:
    return {name: rows.dtype for name, rows in sources.open_checkpoint(path).tensors.items()}


def test_a_list_makes_a_file_of_the_size_and_says_why(here: Any, small: Path, text: Path, tmp_path: Path) -> None:
    found, out = tmp_path / "types.txt", tmp_path / "out.gguf"
    made = here("mix", small, found, "--size", SIZE, "--text", text, *HOW, "--tensor-type", "ffn_up=Q8_0", "--json")
    assert made.code == 0, made.err
    facts = made.events[-1]
    assert facts["standard"]["bytes"] <= SIZE
    assert 0.98 * SIZE < facts["bytes"] <= SIZE  # tensors are large here: no other step fits
    assert here("convert", small, out, "--type", facts["type"], "--tensor-type-file", found).code == 0
    assert out.stat().st_size == facts["bytes"]
    types = _types(out)
    for tensor in facts["tensors"]:
        assert types[tensor["name"]] == tensor["type"]
        assert tensor["cost"] >= 0
        assert tensor["error"] <= tensor["worst_row_error"]
    given = {t["name"]: (t["type"], t["reason"]) for t in facts["tensors"] if "ffn_up" in t["name"]}
    assert set(given.values()) == {("Q8_0", "given: --tensor-type ffn_up=Q8_0")}
    assert types["blk.0.ffn_down.weight"] == "F16"  # 80 columns: no block type fits
    assert facts["tokens_measured"] == facts["tokens_compared"] == 4 * 32
    lines = found.read_text().splitlines()
    assert lines[0].startswith("# streamconv mix: ")
    assert any("KL divergence predicted" in line for line in lines)
    ruled = [line for line in lines if line.startswith("^")]
    assert len(ruled) == len(facts["tensors"])
    assert all(re.fullmatch(r"\^\S+\$=\w+ +# \S.*", line) for line in ruled)
    assert "is already complete" in here(
        "mix", small, found, "--size", SIZE, "--text", text, *HOW, "--tensor-type", "ffn_up=Q8_0"
    ).out  # fmt: skip
    assert sorted(p.name for p in tmp_path.iterdir()) == [".out.gguf.streamconv", "out.gguf", "types.txt"]


@pytest.mark.parametrize(("size", "reference"), [("6", "Q4_K"), ("8", "Q6_K")])
def test_sensitivities_are_measured_with_the_type_next_below_the_size(
    here: Any, data: Path, text: Path, tmp_path: Path, size: str, reference: str
) -> None:
    words = (data / "checkpoints" / "mistral-spm" / "hf", tmp_path / "types.txt", "--bpw", size, "--text", text)
    made = here("mix", *words, *HOW, "--no-check", "--json")
    assert made.code == 0, made.err
    assert made.events[-1]["reference_type"] == reference


def test_the_list_depends_on_neither_threads_nor_memory(here: Any, small: Path, text: Path, tmp_path: Path) -> None:
    lists = []
    for name, more in (("a", ("--threads", 1)), ("b", ("--threads", 3, "--ram", "40MiB"))):
        path = tmp_path / name / "types.txt"
        path.parent.mkdir()
        assert here("mix", small, path, "--bpw", "6.5", "--text", text, *HOW, "--no-check", *more).code == 0
        lists.append([line for line in path.read_text().splitlines() if "--tensor-type-file" not in line])
    assert lists[0] == lists[1]


def test_convert_measures_first_keeps_the_list_and_does_not_measure_again(
    here: Any, small: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, other = tmp_path / "out.gguf", tmp_path / "other.gguf"
    arguments = ("--size", SIZE, "--text", text, "--no-check")
    monkeypatch.setattr("streamconv.sized.N_CTX", 32)
    monkeypatch.setattr("streamconv.evaluation.request.N_CTX", 32)
    done = here("convert", small, out, *arguments)
    assert done.code == 0, done.err
    assert out.stat().st_size <= SIZE
    types = tmp_path / "out.gguf.types"
    kind = re.search(r"^# type (\S+)$", types.read_text(), re.M)
    assert kind is not None
    assert here("convert", small, other, "--type", kind[1], "--tensor-type-file", types).code == 0
    assert other.read_bytes()[4096:] == out.read_bytes()[4096:]
    monkeypatch.setattr("streamconv.sizing.making.make_mix", None)
    out.unlink()
    assert here("convert", small, out, *arguments).code == 0
    assert "already complete" in here("convert", small, out, *arguments).out
    assert "already complete" in here("convert", small, out, *arguments, "--force").out or out.stat().st_size <= SIZE
    types.write_text(types.read_text() + "ffn_up=Q8_0\n")
    refused = here("convert", small, out, *arguments)
    assert refused.code == 73
    assert "was changed since" in refused.err
    assert "--tensor-type-file in place of the size" in refused.err  # --force would not replace it


def _stopping(monkeypatch: pytest.MonkeyPatch, at: int) -> dict[str, int]:
    """Let a run stop where it looks whether it should, for the time number ``at``; counts the looks, and layers that are run."""
    counted = {"looks": 0, "layers": 0}

    def look(course: Any) -> None:
        counted["looks"] += 1
        if counted["looks"] == at:
            raise Stopped("stopped as requested", "Run the same command again.")

    def layer(course: Any, number: int, tasks: Any) -> None:
        counted["layers"] += 1
        LAYER(course, number, tasks)

    monkeypatch.setattr(Course, "look_between", look)
    monkeypatch.setattr(Course, "layer", layer)
    return counted


def test_a_run_stops_in_every_stage_and_the_next_one_does_nothing_again(
    here: Any, small: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, path, job = tmp_path / "whole.txt", tmp_path / "types.txt", tmp_path / "types.txt.streamconv"
    arguments = ("--size", SIZE, "--text", text, *HOW, "--threads", 1)
    usual = _stopping(monkeypatch, 0)
    assert here("mix", small, whole, *arguments).code == 0
    n_layers = usual["layers"]
    n_looks = usual["looks"]
    found, layers = [], 0
    for at in (3, n_looks - 7, 3, 2):  # among the samples, the layers, and the comparison; then what is left
        counted = _stopping(monkeypatch, at)
        found.append(here("mix", small, path, *arguments).code)
        layers += counted["layers"]
        assert job.is_dir() == (found[-1] == 75)
    while found[-1] == 75:
        counted = _stopping(monkeypatch, 0)
        found.append(here("mix", small, path, *arguments).code)
        layers += counted["layers"]
    assert found.count(75) >= 3
    assert found[-1] == 0
    assert layers == n_layers
    assert _rules(path) == _rules(whole)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["types.txt", "whole.txt"]


def _rules(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if "--tensor-type-file" not in line]


@pytest.mark.slow
def test_stop_after_ends_a_run_in_every_stage_once_it_got_further(
    here: Any, small: Path, text: Path, tmp_path: Path
) -> None:
    whole, path = tmp_path / "whole.txt", tmp_path / "types.txt"
    arguments = ("--size", SIZE, "--text", text, *HOW, "--threads", 1)
    assert here("mix", small, whole, *arguments).code == 0
    stages, n = set(), 0
    while True:
        found = here("mix", small, path, *arguments, "--stop-after", "0s")
        stages |= {word for word in ("samples", "measuring", "comparing") if word in found.err}
        if found.code == 0:
            break
        assert found.code == 75
        assert "Run the same command again" in found.err
        n += 1
    assert n > 15  # a matrix or a layer each
    assert stages == {"samples", "measuring", "comparing"}
    assert _rules(path) == _rules(whole)


def test_an_unfinished_mix_of_other_options_is_not_taken_up(here: Any, small: Path, text: Path, tmp_path: Path) -> None:
    path = tmp_path / "types.txt"
    arguments = ("--text", text, *HOW, "--no-check")
    assert here("mix", small, path, "--size", SIZE, *arguments, "--stop-after", "0s").code == 75
    other = here("mix", small, path, "--size", SIZE + 1000, *arguments)
    assert (other.code, "planned differently" in other.err) == (78, True)
    assert here("mix", small, path, "--size", SIZE + 1000, *arguments, "--update").code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--size", "90000"), "is too small: with the smallest types the file has 9"),
        (("--size", "1GiB"), "is more than the largest types take: 1"),
        ((), "give either --size or --bpw"),
        (("--size", "1M", "--bpw", "5"), "give either --size or --bpw"),
        (("--bpw", "-1"), "is no number of bits"),
        (("--size", SIZE, "--type", "Q4_K_M,Q8_0"), "cannot be made with several types in --type"),
        (("--size", SIZE, "--pure"), "unknown argument --pure"),
        (("--size", SIZE, "--type", "F16"), "has a type that is open"),
        (("--size", SIZE, "--types", "IQ2_XS"), "needs an importance matrix"),
        (("--size", SIZE, "--types", "F16"), "F16 is not a quantized type"),
        (("--size", SIZE, "--types", "Q9"), "unknown tensor type"),
        (("--size", SIZE, "--chunks", "1"), "needs two chunks of text at least"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_measured(
    here: Any, small: Path, text: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    found = here("mix", small, tmp_path / "types.txt", "--text", text, *HOW, *arguments)
    assert found.code == 64
    assert message in found.err
    assert not list(tmp_path.iterdir())


def test_convert_refuses_what_belongs_to_a_size_without_one_and_outputs_without_types(
    here: Any, small: Path, tmp_path: Path
) -> None:
    for flag in (("--types", "Q8_0"), ("--no-check",), ("--same-types",), ("--text", "x")):
        found = here("convert", small, tmp_path / "out.gguf", *flag)
        assert found.code == 64
        assert f"{flag[0]} has no effect without --size or --bpw" in found.err
    for name, what in (("out", "only GGUF files"), ("x-{part}.gguf", "{part} in OUT")):
        found = here("convert", small, tmp_path / name, "--size", SIZE)
        assert (found.code, what in found.err) == (64, True), found.err
    for flag, what in (("--pure", "cannot be made with --pure"), ("--dry-run", "Run streamconv mix first")):
        found = here("convert", small, tmp_path / "out.gguf", "--size", SIZE, flag)
        assert (found.code, what in found.err) == (64, True), found.err


def test_a_list_has_the_float_types_that_options_give(here: Any, small: Path, text: Path, tmp_path: Path) -> None:
    path, rules, out = tmp_path / "types.txt", tmp_path / "rules.txt", tmp_path / "out.gguf"
    rules.write_text("attn_v=F16")
    given = ("--tensor-type-file", rules, "--output-tensor-type", "BF16")
    made = here("mix", small, path, "--bpw", "10", "--text", text, *HOW, "--no-check", *given, "--json")
    assert made.code == 0, made.err
    facts = made.events[-1]
    done = here("convert", small, out, "--type", facts["type"], "--tensor-type-file", path)
    assert done.code == 0, done.err
    types = _types(out)
    assert (types["output.weight"], types["blk.1.attn_v.weight"]) == ("BF16", "F16")
    assert out.stat().st_size == facts["bytes"]


def test_the_command_in_a_list_converts_with_it(here: Any, small: Path, text: Path, tmp_path: Path) -> None:
    source, path, out = tmp_path / "a model.gguf", tmp_path / "types.txt", tmp_path / "OUT.gguf"
    assert here("convert", small, source, "--type", "Q8_0").code == 0
    how = ("--text", text, *HOW, "--no-check", "--allow-requantize", "--override-kv", "general.name=str:other")
    made = here("mix", source, path, "--bpw", "6.5", *how, "--json")
    assert made.code == 0, made.err
    told = re.search(r"^# to be used as: streamconv (.*)$", path.read_text(), re.M)
    assert told is not None
    done = here(*(str(out) if word == "OUT.gguf" else word for word in shlex.split(told[1])))
    assert done.code == 0, done.err
    assert out.stat().st_size == made.events[-1]["bytes"]


def test_a_model_of_which_nothing_can_be_quantized_is_refused(
    here: Any, small: Path, text: Path, tmp_path: Path
) -> None:
    def narrow(tensors: Tensors) -> None:
        for name, (dtype, words) in tensors.items():
            kept = tuple(slice(n * 3 // 4 if n in (32, 64) else n) for n in words.shape)
            tensors[name] = dtype, words[kept].copy()

    model = changed(small, tmp_path / "model", narrow, lambda config: config.update(hidden_size=48, head_dim=12))
    found = here("mix", model, tmp_path / "types.txt", "--bpw", "8", "--text", text, *HOW)
    assert (found.code, "nothing to choose" in found.err, "--type F16" in found.err) == (64, True, True), found.err


def test_a_finished_list_leaves_nothing_beside_it_and_has_no_page_of_another(
    here: Any, small: Path, text: Path, tmp_path: Path
) -> None:
    path, page, job = (tmp_path / name for name in ("types.txt", "page.html", "types.txt.streamconv"))
    arguments = ("--size", SIZE, "--text", text, *HOW, "--no-check", "--tensor-type", "attn=Q8_0")
    assert here("mix", small, path, *arguments, "--report", page).code == 0
    path.rename(tmp_path / "kept")
    assert here("mix", small, path, *arguments, "--stop-after", "0s").code == 75
    (tmp_path / "kept").rename(path)  # as if it had been killed between the list and the end
    assert "already complete" in here("mix", small, path, *arguments, "--report", page).out
    assert not job.exists()
    page.write_text(page.read_text().replace("as in the list: ", "as in the list: 0"))
    other = here("mix", small, path, *arguments, "--report", page)
    assert (other.code, "not kept for a page" in other.err) == (73, True)


def test_the_list_of_an_output_that_is_named_by_its_type_is_not(
    here: Any, small: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamconv.sized.N_CTX", 32)
    monkeypatch.setattr("streamconv.evaluation.request.N_CTX", 32)
    done = here("convert", small, tmp_path / "out-{type}.gguf", "--size", SIZE, "--text", text, "--no-check")
    assert done.code == 0, done.err
    kind = re.search(r"^# type (\S+)$", (tmp_path / "out.gguf.types").read_text(), re.M)
    assert kind is not None
    assert (tmp_path / f"out-{kind[1]}.gguf").is_file()


def test_matrices_that_are_fused_get_the_same_type_when_that_is_asked_for(
    small: Path, text: Path, tmp_path: Path
) -> None:
    how: Any = {"bpw": 6.5, "text": text, "n_ctx": 32, "n_chunks": 8, "check": False}
    alone, same = (
        streamconv.mix(small, tmp_path / f"{same}.txt", **how, same_types=same, tensor_types=["blk.1.attn_q=Q8_0"])
        for same in (False, True)
    )
    types = {t["name"]: t["type"] for t in same["tensors"]}
    for group in (("attn_q", "attn_k", "attn_v"), ("attn_k", "attn_v"), ("ffn_gate", "ffn_up")):
        block = 1 if group == ("attn_k", "attn_v") else 0
        assert len({types[f"blk.{block}.{name}.weight"] for name in group}) == 1
    assert alone["mix"]["predicted_kl"] <= same["mix"]["predicted_kl"] * (1 + 1e-9)
    assert same["bytes"] <= same["target"]


def test_python_makes_the_list_that_the_command_makes(here: Any, small: Path, text: Path, tmp_path: Path) -> None:
    path, other = tmp_path / "types.txt", tmp_path / "other.txt"
    how: Any = {"size": SIZE, "text": text, "n_ctx": 32, "n_chunks": 8, "check": False}
    facts = streamconv.mix(small, path, **how, threads=1)
    assert not facts["already"]
    made = here("mix", small, other, "--size", SIZE, "--text", text, *HOW, "--no-check", "--json")
    assert made.events[-1]["tensors"] == facts["tensors"]
    assert _rules(path) == _rules(other)
    assert streamconv.mix(small, path, **how) == {"list": str(path), "already": True, "type": facts["type"]}
    with pytest.raises(UsageError, match="either --size or --bpw"):
        streamconv.mix(small, path)


@pytest.mark.slow
def test_a_thorough_mix_measures_each_third_of_the_layers(here: Any, small: Path, text: Path, tmp_path: Path) -> None:
    made = [
        here("mix", small, tmp_path / f"{n}.txt", "--size", SIZE, "--text", text, *HOW, "--no-check", "--json", *more)
        for n, more in enumerate(((), ("--thorough",)))
    ]
    usual, thorough = (each.events[-1] for each in made)
    assert usual["tokens_measured"] == thorough["tokens_measured"] == 4 * 32  # there are no more

    def shares(facts: Any) -> list[float]:
        return [t["sensitivity"] for t in facts["tensors"] if ".attn_o" in t["name"]]

    assert shares(usual) != shares(thorough)


@pytest.mark.slow
def test_a_file_that_is_no_list_is_not_replaced(here: Any, small: Path, text: Path, tmp_path: Path) -> None:
    path = tmp_path / "types.txt"
    path.write_text("my own notes\n")
    arguments = (small, path, "--size", SIZE, "--text", text, *HOW, "--no-check")
    assert here("mix", *arguments).code == 73
    assert path.read_text() == "my own notes\n"
    assert here("mix", *arguments, "--force").code == 0
    other = here("mix", small, path, "--size", SIZE + 1000, *arguments[4:])
    assert (other.code, "--update" in other.err) == (73, True)
    assert here("mix", small, path, "--size", SIZE + 1000, *arguments[4:], "--update").code == 0
    assert here("mix", small, small / "tokenizer.model", "--size", SIZE, *arguments[4:]).code == 64


def _planted(tensors: Tensors) -> None:
    """A model in which tokens of one kind go through the first block alone, and those of another through the second."""
    half = 32
    for name, (dtype, words) in tensors.items():
        if name.endswith("embed_tokens.weight"):
            even = np.arange(len(words)) % 2 == 0
            words[even, half:] = 0
            words[~even, :half] = 0
        block = re.search(r"layers\.(\d)\.(self_attn\.[qkv]|mlp\.(gate|up))", name)
        if block is not None:
            words[:, slice(half, None) if block[1] == "0" else slice(0, half)] = 0
        block = re.search(r"layers\.(\d)\.(self_attn\.o|mlp\.down)", name)
        if block is not None:
            words[slice(half, None) if block[1] == "0" else slice(0, half)] = 0
        tensors[name] = dtype, words


def test_a_standard_mix_that_is_better_on_other_text_is_kept(
    here: Any, small: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = changed(small, tmp_path / "model", tensors=_planted)
    rng = np.random.default_rng(3)
    inputs = rng.integers(10, 500, (32, 32)) // 2 * 2
    inputs[1::2] += 1  # what is measured on uses the first block, what is compared on the second

    def planted(*_: object) -> Any:
        from streamconv.forward.chunks import Chunks

        return Chunks(inputs.astype(np.int32), inputs[:, 17:].astype(np.int32).copy())

    monkeypatch.setattr("streamconv.sizing.planning.chunks_of", planted)
    path, out = tmp_path / "types.txt", tmp_path / "out.gguf"
    fixed = ("--tensor-type", "output=Q8_0", "--tensor-type", "token_embd=Q8_0")  # else their errors hide all others
    made = here("mix", model, path, "--size", 143_000, "--text", text, *HOW, *fixed, "--json")
    assert made.code == 0, made.err
    facts = made.events[-1]
    assert facts["standard_kept"]
    assert (
        facts["mix"]["predicted_kl"] < facts["standard"]["predicted_kl"]
    )  # so it looks on the text that is measured on
    assert facts["difference"] > 2 * facts["difference_uncertainty"] > 0  # and so it is on the other
    assert "standard mix kept: " in path.read_text()
    kind = re.search(r"^# type (\S+)$", path.read_text(), re.M)
    assert kind is not None
    assert here("convert", model, out, "--type", kind[1], "--tensor-type-file", path).code == 0
    standard = tmp_path / "standard.gguf"
    assert here("convert", model, standard, "--type", kind[1], *fixed).code == 0
    assert _types(out) == _types(standard)
    arguments = ("--size", 143_000, "--text", text, *HOW, *fixed, "--no-check")
    assert here("mix", model, tmp_path / "other.txt", *arguments).code == 0
    other = (tmp_path / "other.txt").read_text()
    assert "not compared with" in other
    assert [line.split()[0] for line in other.splitlines()] != [
        line.split()[0] for line in path.read_text().splitlines()
    ]
