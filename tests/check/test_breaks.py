"""Every way to break a model is told, no harmless change is, and the real loader agrees."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from breaks import BREAKS, HARMLESS, VALUES
from gguf_edit import Gguf, tiny

from streamconv.check import check_gguf
from streamconv.check.names import Stated
from streamconv.check.subject import Subject
from streamconv.check.table import architecture
from streamconv.errors import InputMissing
from streamconv.metadata import Metadata
from streamconv.sources import open_checkpoint

WHOLE = ["llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "smollm3", "olmo2", "internlm2", "minicpm"]

#: loads each file named on the command line in a process of its own; prints {file: loaded}
LOADER = """
import json, os, sys, llama_cpp
result = {}
for path in sys.argv[1:]:
    child = os.fork()
    if not child:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1), os.dup2(quiet, 2)
        model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
        os._exit(0 if model else 1)
    result[os.path.basename(path)] = os.waitpid(child, 0)[1] == 0
print(json.dumps(result))
"""


def errors(path: Path, scan: bool = True) -> list[str]:
    return [finding.message for finding in check_gguf(path, scan) if finding.severity == "error"]


@pytest.mark.parametrize("arch", WHOLE)
def test_a_whole_model_has_no_errors(tmp_path: Path, arch: str) -> None:
    assert errors(tiny(arch).write(tmp_path / "x.gguf")) == []


@pytest.mark.parametrize("case", [*BREAKS, *VALUES])
def test_what_is_broken_is_told(tmp_path: Path, case: str) -> None:
    broken = {**BREAKS, **VALUES}[case]
    model = tiny(broken.arch)
    broken.change(model)
    findings = check_gguf(model.write(tmp_path / "x.gguf"))
    told = [finding for finding in findings if broken.words in finding.message]
    assert told, [finding.message for finding in findings]
    assert told[0].severity == broken.severity
    if broken.severity != "error":
        assert all(finding.severity != "error" for finding in findings)


@pytest.mark.parametrize("case", HARMLESS)
def test_what_is_harmless_is_left_alone(tmp_path: Path, case: str) -> None:
    arch, change = HARMLESS[case]
    model = tiny(arch)
    change(model)
    findings = check_gguf(model.write(tmp_path / "x.gguf"))
    assert [finding.message for finding in findings if finding.severity != "note"] == []


@pytest.mark.slow
@pytest.mark.oracle
def test_the_real_loader_refuses_exactly_what_we_call_an_error(tmp_path: Path, peers: Path) -> None:
    predicted = {}
    changes = {name: (broken.arch, broken.change) for name, broken in BREAKS.items()}
    changes |= {f"harmless {name}": change for name, change in HARMLESS.items()}
    changes |= {f"whole {arch}": (arch, lambda _model: None) for arch in WHOLE}
    for name, (arch, change) in changes.items():
        model = tiny(arch)
        change(model)
        path = model.write(tmp_path / f"{name}.gguf")
        predicted[path.name] = not errors(path)
    command = [str(peers), "-c", LOADER, *(str(tmp_path / name) for name in predicted)]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert {name: ok for name, ok in predicted.items() if found[name] != ok} == {}


def test_a_tied_model_says_where_its_logits_come_from(tmp_path: Path) -> None:
    notes = [finding.message for finding in check_gguf(tiny("llama").write(tmp_path / "x.gguf"))]
    assert any("reuses token_embd.weight (tied)" in note for note in notes)


def test_a_damaged_file_is_a_finding_and_a_missing_one_an_error(tmp_path: Path) -> None:
    path = tiny("llama").write(tmp_path / "x.gguf")
    path.write_bytes(path.read_bytes()[:-500])
    (finding,) = check_gguf(path)
    assert finding.severity == "error"
    assert "truncated" in finding.message
    with pytest.raises(InputMissing):
        check_gguf(tmp_path / "no.gguf")


def test_an_unaligned_gap_between_tensors_is_told(tmp_path: Path) -> None:
    path = tiny("gemma3").write(tmp_path / "x.gguf", alignment=64)  # valid for alignment 64, which no key states
    assert any("refuses gaps" in error for error in errors(path))


def test_a_name_too_long_for_ggml_is_told(tmp_path: Path) -> None:
    model = tiny("llama")
    model.floats("x" * 64, 4)
    assert any(
        "has 64 bytes, the loader accepts at most 63" in error for error in errors(model.write(tmp_path / "x.gguf"))
    )


def test_without_scan_the_data_are_not_read(tmp_path: Path) -> None:
    model = tiny("llama")
    VALUES["NaN"].change(model)
    path = model.write(tmp_path / "x.gguf")
    assert errors(path, scan=False) == []
    assert len(errors(path)) == 1


def test_a_mixture_may_use_all_of_its_experts(tmp_path: Path) -> None:
    model = tiny("llama")
    model.set("llama.expert_count", "UINT32", 4)
    for used, told in ((0, True), (1, False), (4, False), (5, True)):
        model.set("llama.expert_used_count", "UINT32", used)
        found = errors(model.write(tmp_path / "x.gguf"), scan=False)
        assert any(f"expert_used_count is {used} of 4" in error for error in found) == told


def test_groups_of_experts_are_equal_and_more_than_one_expert_each(tmp_path: Path) -> None:
    model = tiny("llama")
    model.set("llama.expert_count", "UINT32", 8)
    model.set("llama.expert_used_count", "UINT32", 2)
    for groups, told in ((1, False), (2, False), (3, True), (4, False), (8, True)):
        model.set("llama.expert_group_count", "UINT32", groups)
        found = errors(model.write(tmp_path / "x.gguf"), scan=False)
        assert any("expert_group_count" in error for error in found) == told


def test_a_message_that_ends_is_no_end_of_the_answer_where_answers_have_their_own(tmp_path: Path) -> None:
    model = tiny("llama")
    texts = list(model.keys.get("tokenizer.ggml.tokens"))
    texts[20:23] = ["<|end|>", "<|return|>", "<|eot_id|>"]
    model.set("tokenizer.ggml.tokens", "ARRAY", texts, "STRING")
    ends = [f.message for f in check_gguf(model.write(tmp_path / "x.gguf")) if "generation ends at" in f.message]
    assert ends == ["generation ends at 2 '</s>', 20 '<|end|>', 21 '<|return|>', 22 '<|eot_id|>'"]
    texts[23] = "<|call|>"
    model.set("tokenizer.ggml.tokens", "ARRAY", texts, "STRING")
    ends = [f.message for f in check_gguf(model.write(tmp_path / "x.gguf")) if "generation ends at" in f.message]
    assert ends == ["generation ends at 2 '</s>', 21 '<|return|>', 22 '<|eot_id|>', 23 '<|call|>'"]


def test_an_unknown_architecture_is_a_note(tmp_path: Path) -> None:
    model = Gguf()
    model.set("general.architecture", "STRING", "mamba99")
    model.floats("w", 4)
    findings = check_gguf(model.write(tmp_path / "x.gguf"))
    assert any("not one that check knows" in finding.message for finding in findings)


@pytest.mark.parametrize("value", [3, 2**63, -1, "many", [1, 2], 1.5, True])
@pytest.mark.parametrize("key", ["block_count", "attention.head_count", "expert_count", "rope.scaling.factor"])
def test_nonsense_in_the_keys_never_breaks_the_check(tmp_path: Path, key: str, value: object) -> None:
    model = tiny("llama")
    kind = {
        int: "UINT64" if isinstance(value, int) and value > 0 else "INT64",
        str: "STRING",
        float: "FLOAT64",
        bool: "BOOL",
    }
    if isinstance(value, list):
        model.set(f"llama.{key}", "ARRAY", value, "INT32")
    else:
        model.set(f"llama.{key}", kind[type(value)], value)
    assert check_gguf(model.write(tmp_path / "x.gguf"))


def test_the_reference_files_have_no_errors_and_the_endings_of_the_loader(reference: Path) -> None:
    from streamconv.check.endings import end_ids
    from streamconv.sources import read_splits

    for path in sorted((reference / "golden" / "gguf").glob("*/*.gguf")):
        assert errors(path) == [], path
        case = json.loads((path.parent / "case.json").read_text())
        if case.get("llamacpp_eog_ids") and path.name == "f32.gguf":
            assert sorted(end_ids(Subject.of(read_splits(path)))) == case["llamacpp_eog_ids"], path


def test_every_expression_of_the_table_can_be_evaluated() -> None:
    from streamconv.check.expressions import evaluate
    from streamconv.check.table import architectures

    class Sevens(dict[str, int]):
        """Every known name is 7, every tensor there."""

        def __missing__(self, name: str) -> int:
            stem = name.removesuffix("_i").removesuffix("_0")
            assert name.startswith("has ") or name in known_names or stem in known_names, name
            return 7

    for name in architectures():
        known = architecture(name)
        assert known is not None
        known_names = {*Stated(Metadata(), let=known.let).scope()}
        for wanted in known.tensors:
            assert wanted.applies(Sevens()) is not None
            assert all(size is not None or "any" in wanted.sizes for size in wanted.shape(Sevens()))
            wanted.required(Sevens())
        for expression in (
            known.layers,
            *known.let.values(),
            *known.must,
            *(key.condition or "1" for key in known.keys),
        ):
            evaluate(expression, Sevens())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Caf__", b"Caf\xe9\xff"),
        (b"general.nam__", b"general.nam\xe9\xff"),
        (b"{{ m }}__", b"{{ m }}\xe9\xff"),
        (b"tag__", b"tag\xe9\xff"),
        (b"t20", b"t\xe9\xff"),
    ],
)
def test_text_that_is_not_utf8_is_a_warning_as_the_loader_takes_it(tmp_path: Path, old: bytes, new: bytes) -> None:
    model = tiny("llama")
    model.set("general.name", "STRING", "Caf__")
    model.set("general.nam__", "STRING", "x")
    model.set("tokenizer.chat_template", "STRING", "{{ m }}__")
    model.set("general.tags", "ARRAY", ["tag__"], "STRING")
    path = model.write(tmp_path / "x.gguf")
    path.write_bytes(path.read_bytes().replace(old, new))
    told = [finding for finding in check_gguf(path) if "not UTF-8" in finding.message]
    assert [finding.severity for finding in told] == ["warning"] * (1 if old != b"tag__" else 0)
    assert errors(path) == []


@pytest.mark.parametrize("vocabulary", ["none", "damaged"])
def test_of_an_architecture_that_is_in_no_table_only_what_it_states_is_judged(tmp_path: Path, vocabulary: str) -> None:
    model = tiny("llama")
    model.set("general.architecture", "STRING", "flux")
    if vocabulary == "none":
        for key in [key for key, _ in model.keys.items() if key.startswith("tokenizer.")]:
            model.keys.remove(key)
    else:
        model.set("tokenizer.ggml.tokens", "ARRAY", ["a"] * 40, "STRING")
    path = model.write(tmp_path / "x.gguf")
    assert any("'flux' is not one that check knows" in f.message and f.severity == "note" for f in check_gguf(path))
    assert errors(path) == []
    assert any("are both 'a'" in finding.message for finding in check_gguf(path)) == (vocabulary == "damaged")


def test_a_key_of_another_architecture_with_another_type_is_a_warning(tmp_path: Path) -> None:
    model = tiny("llama")
    model.set("llama.use_parallel_residual", "UINT32", 1)
    findings = check_gguf(model.write(tmp_path / "x.gguf"))
    assert [f.severity for f in findings if "loaders that read it expect BOOL" in f.message] == ["warning"]


def test_an_empty_key_is_left_out_of_what_is_converted(tmp_path: Path) -> None:
    model = tiny("llama")
    model.set("", "UINT32", 1)
    found = open_checkpoint(model.write(tmp_path / "x.gguf"))
    assert found.metadata is not None
    assert "" not in found.metadata
    assert "key of the metadata is empty" in found.warnings[0]


@pytest.mark.parametrize(("dropped", "told"), [
    ("\u010d", "no token is the byte '0x0D': "), ("A\u010a", "no token is the byte '0x0A', '0x41': "),
    ("\u00c0\u00c1\u00ff", ""), ("", ""), ("".join(chr(n) for n in range(0x100, 0x141)), ""),
])  # fmt: skip
def test_bytes_that_no_token_spells_are_named(tmp_path: Path, dropped: str, told: str) -> None:
    model = tiny("qwen2")
    spelled = [*map(chr, (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))), *map(chr, range(0x100, 0x144))]
    assert len(spelled) == 256
    model.set("tokenizer.ggml.model", "STRING", "gpt2")
    model.set(
        "tokenizer.ggml.tokens", "ARRAY", [t if t not in dropped else f"no{n}" for n, t in enumerate(spelled)], "STRING"
    )
    found = [f for f in check_gguf(model.write(tmp_path / "x.gguf")) if "no token is the byte" in f.message]
    assert len(found) == bool(told)
    assert all(told in f.message and f.severity == "note" for f in found)
