"""What the names of a model's files say; every such name is known in one place."""

from __future__ import annotations

import ast

import pytest
from package_source import PACKAGE, files, nodes

from streamconv.file_names import (
    CONTAINERS,
    ENDINGS,
    GGUF,
    OF_FOLDERS,
    OF_TOKENIZERS,
    SAFETENSORS,
    TORCH,
    VOCABULARIES,
    container_of,
    fits,
    is_weights,
    part_names,
    part_of,
)
from streamconv.sources.hf_config import TEXT_SECTIONS, THINKER


def spelled(texts: set[str]) -> set[str]:
    """The files of the package in which one of ``texts`` is a constant."""
    return {
        str(path.relative_to(PACKAGE))
        for path in files()
        for node in nodes(path)
        if isinstance(node, ast.Constant) and node.value in texts
    }


def test_endings_and_names_of_weights_are_spelled_in_one_file() -> None:
    names = {each for c in OF_FOLDERS for each in (c.whole, c.index, c.pattern, c.adapter)}
    assert not spelled({*names, *TORCH.endings, ".zst"}) - {"file_names.py"}
    assert spelled(set(TORCH.endings)) == {"file_names.py"}


def test_sections_of_text_models_are_spelled_in_one_file() -> None:
    assert spelled({*TEXT_SECTIONS, THINKER} - {"text_config"}) == {"sources/hf_config.py"}


@pytest.mark.parametrize("ending", [*ENDINGS, ".onnx", ".h5", ".msgpack", ".npz", ".part"])
def test_files_of_weights_are_told_by_their_endings_compressed_or_not(ending: str) -> None:
    assert is_weights(f"model{ending}")
    assert is_weights(f"model{ending}.zst")
    assert not is_weights(f"model{ending}.txt")


def test_indexes_are_weights_and_other_files_are_not() -> None:
    assert all(is_weights(c.index) for c in OF_FOLDERS)
    assert not any(
        map(is_weights, ["config.json", "tokenizer.model", "notes.zst", "x.index.json", "safetensors", "gguf"])
    )


def test_a_format_is_told_by_the_ending_and_only_some_may_be_compressed() -> None:
    for container in CONTAINERS:
        for ending in container.endings:
            assert container_of(f"a.b{ending}") is container
            assert container_of(f"a.b{ending}.zst") is (container if container.is_packable else None)
    assert {c.name for c in CONTAINERS if c.is_packable} == {"safetensors", "gguf"}
    assert container_of("model.SAFETENSORS") is container_of("model") is container_of("") is None


@pytest.mark.parametrize("stem", ["model", "q-00001-of-00002", "", "a b\n"])
@pytest.mark.parametrize("ending", [*SAFETENSORS.endings, *GGUF.endings, ".fp16.safetensors"])
def test_names_of_parts_say_what_they_were_made_of(stem: str, ending: str) -> None:
    parts = [part_of(name) for name in part_names(stem, 12, ending)]
    assert parts == [(stem, number, 12, ending) for number in range(1, 13)]


@pytest.mark.parametrize(
    "name", ["q-0001-of-00002.gguf", "q-00001-of-00002", "q-00001-of-2.gguf", "q-٠٠٠٠١-of-٠٠٠٠٢.gguf"]
)
def test_other_numbers_are_no_parts(name: str) -> None:
    assert part_of(name) is None


@pytest.mark.parametrize(
    "name", ["tiktoken.model", "qwen.tiktoken", "tokenizer.jsonl", "rwkv_vocab_v20230424.txt", "spiece.model"]
)
def test_a_file_of_a_vocabulary_is_known_by_its_name(name: str) -> None:
    assert fits(name, VOCABULARIES)
    assert fits(name, OF_TOKENIZERS)
