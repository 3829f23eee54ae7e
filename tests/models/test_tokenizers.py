"""Tokenizer metadata: the reference's keys, what is added to them, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from own_layout import tekken
from tokenizer_cases import added, assert_holds, bpe_files, checkpoint, read, spm_file, write_json

from streamconv.errors import BadInput, InputMissing, UsageError
from streamconv.models import tokenizers
from streamconv.models.tokenizers import BPE, GEMMA3, LLAMA, QWEN, SPM, TokenizerRule

_HERE = Path(__file__).resolve().parent.parent
SMALL = sorted(path.name for path in (_HERE / "data" / "tokenizers").iterdir())
#: every reference case -> the family's rule
ALL = {
    **dict.fromkeys(["llama2-spm", "llama3-bpe", "llama-linear-sharded", "llama-ternary-256"], "LLAMA"),
    **dict.fromkeys(["mistral-spm", "mixtral-moe", "granite", "smollm3"], "LLAMA"),
    **dict.fromkeys(["qwen2-yarn", "qwen2-realvocab", "qwen3-tied", "minicpmv26"], "QWEN"),
    **dict.fromkeys(["gemma3-text", "gemma3-mm", "gemma3n-text"], "GEMMA3"),
    **dict.fromkeys(["gpt2-realvocab", "starcoder2", "olmo2", "command-r", "phi2", "qwen2moe"], "BPE"),
    **dict.fromkeys(["deepseek2-lite", "falcon", "gptneox", "stablelm"], "BPE"),
    "gemma1": "GEMMA1",
    "minicpm": "SPM",
    "bert": "BERT",
}


@pytest.mark.parametrize("name", SMALL)
def test_small_cases_have_the_keys_of_the_reference_in_its_order(data: Path, name: str) -> None:
    folder = data / "tokenizers" / name
    expected = json.loads((folder / "expected.json").read_text())
    found = read(folder, expected["rule"], expected["pre"])
    assert_holds(found.metadata, expected["keys"])
    assert found.n_tokens == len(found.metadata.get("tokenizer.ggml.tokens"))
    assert found.warnings == []


@pytest.mark.parametrize("name", ALL)
def test_all_cases_have_the_keys_of_the_reference(reference: Path, name: str) -> None:
    case = reference / "golden" / "gguf" / name
    dump = next(case / f"{x}.dump.json" for x in ("f32", "vocab", "f16") if (case / f"{x}.dump.json").exists())
    keys = {k: v for k, v in json.loads(dump.read_text())["kv"].items() if k.startswith("tokenizer.")}
    pre = json.loads((case / "case.json").read_text())["pretokenizer_override"]
    # Gemma 3n takes all rows, not those of the per-layer embedding; Phi-2 writes a flag among its own keys
    options = {"vocab_size": 520} if name == "gemma3n-text" else {}
    found = read(case / "hf", ALL[name], pre, **options)
    assert_holds(found.metadata, keys, ordered=name != "phi2")


@pytest.mark.parametrize("name", SMALL)
def test_side_files_in_memory_are_as_good_as_those_on_disk(data: Path, tmp_path: Path, name: str) -> None:
    folder = data / "tokenizers" / name
    expected = json.loads((folder / "expected.json").read_text())
    rule = getattr(tokenizers, expected["rule"])
    on_disk = checkpoint(folder)
    side: dict[str, Path | bytes] = {n: on_disk.side_bytes(n) or b"" for n in on_disk.side_names()}
    in_memory = replace(on_disk, path=tmp_path, side=side)
    config = {**on_disk.config, **on_disk.config.get("text_config", {})}
    found = tokenizers.tokenizer_metadata(in_memory, config, rule, pre=expected["pre"])
    assert_holds(found.metadata, expected["keys"])


def test_a_large_tokenizer_leaves_little_in_memory(reference: Path) -> None:
    folder = reference / "golden" / "gguf" / "qwen2-realvocab" / "hf"
    script = (
        "import json, sys\n"
        "from pathlib import Path\n"
        "from tokenizer_cases import read\n"
        "def anon():\n"
        "    text = Path('/proc/self/status').read_text()\n"
        "    return int(text.split('RssAnon:')[1].split()[0]) // 1024\n"
        "before = anon()\n"
        "kept = read(Path(sys.argv[1]), 'QWEN')\n"
        "print(anon() - before)\n"
    )
    command = [sys.executable, "-c", script, str(folder)]
    paths = {"PYTHONPATH": f"{Path(__file__).parent}:{_HERE.parent}"}
    if not Path("/proc/self/status").exists():
        pytest.skip("no /proc")
    done = subprocess.run(command, capture_output=True, text=True, env=paths, check=True)
    assert int(done.stdout) < 50  # MiB; measured 24, and 82 when the library is loaded in this process


# What is added to the reference's keys


def test_the_first_of_a_list_of_ends_becomes_eos_and_end_of_turn_is_named(data: Path) -> None:
    metadata = read(data / "tokenizers" / "gemma3-text", GEMMA3).metadata
    assert list(metadata.values)[-2:] == ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"]
    assert metadata.get("tokenizer.ggml.eos_token_id") == 1
    assert metadata.get("tokenizer.ggml.eot_token_id") == 5


def test_ids_only_generation_config_knows_are_added(tmp_path: Path) -> None:
    bpe_files(tmp_path)
    write_json(tmp_path, "generation_config.json", {"bos_token_id": 4, "eos_token_id": [4, 1]})
    metadata = read(tmp_path, BPE, "gpt-2").metadata
    assert metadata.get("tokenizer.ggml.bos_token_id") == 4
    assert metadata.get("tokenizer.ggml.eos_token_id") == 4


def test_the_ends_of_config_json_go_before_those_of_generation_config(tmp_path: Path) -> None:
    bpe_files(tmp_path)
    write_json(tmp_path, "config.json", {"eos_token_id": [1, 4]})
    write_json(tmp_path, "generation_config.json", {"eos_token_id": [4, 1], "bos_token_id": 4})
    metadata = read(tmp_path, BPE, "gpt-2").metadata
    assert metadata.get("tokenizer.ggml.eos_token_id") == 1
    assert metadata.get("tokenizer.ggml.bos_token_id") == 4


def test_texts_of_special_tokens_are_looked_up_where_only_a_sentencepiece_model_is(tmp_path: Path) -> None:
    spm_file(tmp_path, ("<unk>", 0, 2), ("<eos>", 0, 3), ("<bos>", 0, 3))
    write_json(tmp_path, "tokenizer_config.json", {"bos_token": "<bos>", "eos_token": {"content": "<eos>"}})
    metadata = read(tmp_path, SPM).metadata
    assert metadata.get("tokenizer.ggml.bos_token_id") == 2
    assert metadata.get("tokenizer.ggml.eos_token_id") == 1


def test_ids_beyond_the_vocabulary_are_never_added(tmp_path: Path) -> None:
    bpe_files(tmp_path)
    write_json(tmp_path, "generation_config.json", {"bos_token_id": 99, "eos_token_id": [5, 99]})
    metadata = read(tmp_path, BPE, "gpt-2").metadata
    assert "tokenizer.ggml.bos_token_id" not in metadata
    assert "tokenizer.ggml.eos_token_id" not in metadata


def test_class_defaults_count_only_where_a_control_token_is(tmp_path: Path) -> None:
    bpe_files(tmp_path)
    write_json(tmp_path, "config.json", {})
    from tokenizer_cases import checkpoint

    from streamconv.models.tokenizers import tokenizer_metadata

    found = tokenizer_metadata(checkpoint(tmp_path), {"bos_token_id": 1, "eos_token_id": 4}, BPE, pre="gpt-2")
    assert "tokenizer.ggml.bos_token_id" not in found.metadata  # "b", an ordinary token
    assert found.metadata.get("tokenizer.ggml.eos_token_id") == 4


# Families


def test_codellama_has_a_fixed_end_of_turn_and_small_granites_no_bos(tmp_path: Path) -> None:
    bpe_files(tmp_path)
    for vocab_size, key, value in ((32016, "eot_token_id", 32010), (49152, "add_bos_token", False)):
        write_json(tmp_path, "config.json", {"vocab_size": vocab_size})
        metadata = read(tmp_path, LLAMA, "gpt-2").metadata
        assert metadata.get(f"tokenizer.ggml.{key}") == value


def test_llama_writes_add_prefix_space_before_everything_else(tmp_path: Path) -> None:
    spm_file(tmp_path, ("<unk>", 0, 2), ("▁a", -1, 1))
    write_json(tmp_path, "tokenizer_config.json", {"add_prefix_space": False})
    first, *_ = read(tmp_path, LLAMA).metadata.items()
    assert first[0] == "tokenizer.ggml.add_space_prefix"
    assert first[1].value is False
    assert "tokenizer.ggml.add_space_prefix" not in read(tmp_path, QWEN).metadata


def test_gemma_3_without_a_sentencepiece_model_gets_no_space_prefix_key(tmp_path: Path) -> None:
    metadata = read(bpe_files(tmp_path), GEMMA3, "gpt-2").metadata
    assert metadata.get("tokenizer.ggml.model") == "gpt2"
    assert "tokenizer.ggml.add_space_prefix" not in metadata


def test_a_byte_level_tokenizer_json_goes_before_a_sentencepiece_model_that_contradicts_it(tmp_path: Path) -> None:
    bpe_files(tmp_path)
    assert read(tmp_path, LLAMA, "gpt-2").warnings == []
    spm_file(tmp_path, ("<unk>", 0, 2), ("a", -1, 1))
    found = read(tmp_path, LLAMA, "gpt-2")
    assert found.kind == "bpe"
    assert "tokenizer.model is not read: the vocabulary of tokenizer.json is byte-level" in found.warnings[0]
    (tmp_path / "tokenizer.json").unlink()
    found = read(tmp_path, LLAMA, "gpt-2")
    assert found.kind == "spm"
    assert "--pre gpt-2 has no effect" in found.warnings[0]


# What is refused


def test_no_tokenizer_at_all_names_the_files_looked_for(tmp_path: Path) -> None:
    with pytest.raises(InputMissing, match=r"no tokenizer\.model or tokenizer\.json"):
        read(tmp_path, LLAMA)


def test_a_tekken_file_is_read_where_there_is_no_tokenizer_json(tmp_path: Path) -> None:
    (tmp_path / "tekken.json").write_text(json.dumps(tekken()))
    spm_file(tmp_path, ("<unk>", 0, 2), ("a", -1, 1))
    found = read(tmp_path, LLAMA)
    assert (found.kind, found.n_tokens) == ("tekken", 280)
    assert found.metadata.get("tokenizer.ggml.pre") == "tekken"
    assert read(bpe_files(tmp_path), LLAMA, "gpt-2").kind == "bpe"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model": 3}', '{"model": {"type": "BPE"}}', '"x"', "{}", "nul"])
def test_a_broken_tokenizer_json_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(BadInput, match=r"tokenizer\.json"):
        read(tmp_path, BPE, "gpt-2")
    with pytest.raises(BadInput, match=r"tokenizer\.json"):
        read(tmp_path, BPE)


@pytest.mark.parametrize(
    "changes",
    [
        {"added_tokens": 3},
        {"added_tokens": [3]},
        {"added_tokens": [{"id": "x", "content": "a"}]},
        {"added_tokens": [{"id": -1, "content": "a"}]},
        {"added_tokens": [{"id": 4}]},
        {"added_tokens": [added(4, "<x>"), added(4, "<y>")]},
        {"added_tokens": [added(3, "<x>")]},
        {"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}},
        {"model": {"type": "BPE", "vocab": {"a": 0, "b": 0}, "merges": []}},
        {"model": {"type": "BPE", "vocab": {"a": 1 << 40}, "merges": []}},
        {"model": {"type": "BPE", "vocab": {"a": True}, "merges": []}},
        {"model": {"type": "BPE", "vocab": {"\ud800": 0}, "merges": ["a b"]}},
        {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a"]]}},
        {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": 7}},
        {"model": {"type": "Unigram", "vocab": [["a", 0.0]]}},
        {"decoder": {"type": "Nonsense"}, "added_tokens": [added(4, "Ġx")]},
    ],
)
def test_contradictions_in_tokenizer_json_are_bad_input(tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(BadInput, match=r"tokenizer\.json"):
        read(bpe_files(tmp_path, **changes), BPE, "gpt-2")


def test_two_tokens_with_one_text_are_refused_with_both_ids(tmp_path: Path) -> None:
    bpe_files(tmp_path, added_tokens=[added(4, "[PAD5]", special=False)])
    write_json(tmp_path, "config.json", {"vocab_size": 6})
    with pytest.raises(BadInput, match=r"tokens 4 and 5 are both '\[PAD5\]'"):
        read(tmp_path, BPE, "gpt-2")


def test_a_token_id_beyond_the_model_is_refused(tmp_path: Path) -> None:
    write_json(bpe_files(tmp_path), "config.json", {"vocab_size": 4})
    with pytest.raises(BadInput, match="token id 4 is beyond the model's vocabulary of 4"):
        read(tmp_path, BPE, "gpt-2")


@pytest.mark.parametrize("count", [0, -5, "many", 1 << 40, True, 2.5])
def test_an_impossible_vocab_size_is_refused(tmp_path: Path, count: object) -> None:
    write_json(bpe_files(tmp_path), "config.json", {"vocab_size": count})
    with pytest.raises(BadInput, match="vocab_size"):
        read(tmp_path, BPE, "gpt-2")


# The pre-tokenizer


def test_an_unknown_vocabulary_asks_for_the_name_and_suggests_some(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"check text hash [0-9a-f]{64}") as caught:
        read(bpe_files(tmp_path), BPE)
    assert "--pre NAME" in caught.value.hint
    assert "look like those of: gpt-2" in caught.value.hint
    assert "qwen2" in caught.value.hint


def test_an_unknown_name_lists_near_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"Did you mean .*llama-bpe") as caught:
        read(bpe_files(tmp_path), BPE, "lama-bpe")
    assert caught.value.exit_code == 64


def test_a_file_the_library_cannot_use_is_named(tmp_path: Path) -> None:
    bpe_files(tmp_path, pre_tokenizer={"type": "Nonsense"})
    with pytest.raises(BadInput, match=r"tokenizer\.json cannot be used"):
        read(tmp_path, BPE)


def test_the_rule_of_a_family_can_be_stated_in_place(tmp_path: Path) -> None:
    rule = TokenizerRule(kinds=("bpe",), eot_token_id=3)
    assert read(bpe_files(tmp_path), rule, "gpt-2").metadata.get("tokenizer.ggml.eot_token_id") == 3
