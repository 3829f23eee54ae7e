"""Vocabularies of models that are published without one."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
from tokenizer_cases import array_sha256, read, write_json

from streamconv.errors import InputMissing
from streamconv.metadata import Metadata
from streamconv.models import FAMILIES
from streamconv.models.config import Config
from streamconv.models.tokenizers import GPT_NEOX, LLAMA_2, Tokenizer
from streamconv.models.tokenizers.brought_along import brought_template
from streamconv.sources.checkpoint import Checkpoint

NEOX_MERGES = 50009


def keys(found: Tokenizer) -> dict[str, Any]:
    return {key.removeprefix("tokenizer.ggml."): value.value for key, value in found.metadata.items()}


def sized(folder: Path, n: int, **stated: Any) -> Path:
    write_json(folder, "config.json", {"vocab_size": n, **stated})
    return folder


def test_a_mamba_without_a_tokenizer_gets_the_vocabulary_of_gpt_neox(tmp_path: Path) -> None:
    found = read(sized(tmp_path, 50280), GPT_NEOX)
    made = keys(found)
    assert [made["model"], made["pre"], len(made["tokens"]), len(made["merges"])] == ["gpt2", "mpt", 50280, NEOX_MERGES]
    assert [made["tokens"][n] for n in (0, 1, 2, 245, 247, 50253, 50254, 50276, 50277)] == [
        "<|endoftext|>", "<|padding|>", "!", "ĠĠ", "Ġa", "ĠOutcomes", " " * 24, "  ", "[PAD50277]"
    ]  # fmt: skip
    assert [made["token_type"][n] for n in (0, 1, 2, 50253, 50254, 50279)] == [3, 3, 1, 1, 4, 4]
    assert [made[f"{kind}_token_id"] for kind in ("bos", "eos", "unknown")] == [0, 0, 0]
    assert "GPT-NeoX's" in found.warnings[0]


def test_packed_vocabularies_are_those_that_llama_cpp_keeps(tmp_path: Path) -> None:
    """Digests of the arrays in llama.cpp's files."""
    neox, llama = keys(read(sized(tmp_path, 50432), GPT_NEOX)), keys(read(sized(tmp_path, 32000), LLAMA_2))
    assert array_sha256("STRING", neox["tokens"])[:16] == "8b4c73132a6c7d86"
    assert array_sha256("STRING", neox["merges"])[:16] == "bc7902105e960847"
    assert array_sha256("INT32", neox["token_type"])[:16] == "664d6cc11a439a75"
    assert array_sha256("STRING", llama["tokens"])[:16] == "621e8daacd0e3006"
    assert array_sha256("FLOAT32", llama["scores"])[:16] == "22d236f7d0f4505e"
    assert array_sha256("INT32", llama["token_type"])[:16] == "669bb0f5a2b04397"


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("deepseek-v4", "7bd4fbdf0c06cd73"), ("deepseek-v4-0731", "aec3d906bce80d43"), ("kimi-k3", "4578103bf225f58d"),
        ("minimax-m1", "e1790d8fbe1c587e"),
        ("mistral-v11", "5b8f31f111986965"), ("mistral-v13", "039a4710e2aabaa7"), ("rwkv-world", "e70723034f092809"),
    ],
)  # fmt: skip
def test_packed_templates_are_those_that_llama_cpp_has(name: str, digest: str) -> None:
    assert hashlib.sha256(brought_template(name).encode()).hexdigest()[:16] == digest


@pytest.mark.parametrize(
    ("family", "folder", "name"),
    [
        ("KimiK3ForConditionalGeneration", "Kimi-K3", "kimi-k3"), ("DeepseekV4ForCausalLM", "DeepSeek-V4-Flash", "deepseek-v4"),
        ("DeepseekV4ForCausalLM", "DeepSeek-V4-Flash-0731", "deepseek-v4-0731"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("own", ["", "{{ own }}"])
def test_models_published_without_a_template_get_one_where_they_bring_none(
    family: str, folder: str, name: str, own: str
) -> None:
    checkpoint = Checkpoint(Path(folder), {}, {}, ())
    keys = Metadata()
    if own:
        keys.string("tokenizer.chat_template", own)
    for key in FAMILIES[family].token_keys:
        key(keys, "a", Config({}, {}, {}, checkpoint))
    assert keys.get("tokenizer.chat_template") == (own or brought_template(name))


def test_a_smaller_model_has_the_first_tokens_of_a_packed_vocabulary(tmp_path: Path) -> None:
    made = keys(read(sized(tmp_path, 300), LLAMA_2))
    assert made["tokens"][:4] == ["<unk>", "<s>", "</s>", "<0x00>"]
    assert [len(made[name]) for name in ("tokens", "scores", "token_type")] == [300, 300, 300]
    assert [made["add_bos_token"], made["add_eos_token"]] == [True, False]


def test_ids_of_a_packed_vocabulary_are_its_own_whatever_config_json_says(tmp_path: Path) -> None:
    made = keys(read(sized(tmp_path, 300, bos_token_id=7, eos_token_id=8), LLAMA_2))
    assert [made[f"{kind}_token_id"] for kind in ("bos", "eos", "unknown")] == [1, 2, 0]


@pytest.mark.parametrize(
    ("name", "n", "why"),
    [("tokenizer.model.v3", 300, "tokenizer.model.v3 is not read"), ("", 50440, "has 50432 tokens, the model 50440")],
)
def test_another_vocabulary_is_not_taken_for_the_packed_one(tmp_path: Path, name: str, n: int, why: str) -> None:
    if name:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InputMissing, match=re.escape(why)):
        read(sized(tmp_path, n), GPT_NEOX)
