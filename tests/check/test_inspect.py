"""Describing checkpoints: the data are complete and JSON, the text is safe to print."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np

from streamconv import inspect
from streamconv.sources import open_checkpoint


def safetensors(path: Path, tensors: dict[str, np.ndarray]) -> Path:
    header, data = {}, b""
    for name, values in tensors.items():
        raw = values.astype("<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def gguf(path: Path) -> Path:
    def text(plain: str) -> bytes:
        return struct.pack("<Q", len(plain.encode())) + plain.encode()

    tokens = [f"t{i}" for i in range(20)]
    pairs = [
        text("general.architecture") + struct.pack("<I", 8) + text("llama"),
        text("llama.zero") + struct.pack("<II", 4, 0),
        text("llama.flag") + struct.pack("<I?", 7, False),
        text("llama.epsilon") + struct.pack("<If", 6, 1e-5),
        text("tokenizer.ggml.model") + struct.pack("<I", 8) + text("llama"),
        text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 20) + b"".join(map(text, tokens)),
        text("tokenizer.ggml.eos_token_id") + struct.pack("<II", 4, 3),
        text("tokenizer.ggml.bos_token_id") + struct.pack("<II", 4, 99),
        text("evil\x1b[2Jkey") + struct.pack("<I", 8) + text("a\x1b]0;title\x07" + "y" * 9000),
    ]
    info = text("q") + struct.pack("<IQQIQ", 2, 64, 3, 8, 0)
    head = struct.pack("<4sIQQ", b"GGUF", 3, 1, len(pairs)) + b"".join(pairs) + info
    path.write_bytes(head + bytes(-len(head) % 32) + bytes(3 * 68))
    return path


def test_a_folder_is_described_with_config_totals_and_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        '{"model_type": "x", "text_config": {"hidden_size": 8}, "tie_word_embeddings": false}'
    )
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "T", "chat_template": "{{ x }}"}')
    for number, name in enumerate(("a", "b"), start=1):
        safetensors(
            tmp_path / f"model-{number:05d}-of-00002.safetensors", {name: np.zeros((4, 8)), f"{name}.s": np.array(1.0)}
        )
    facts = inspect.describe(open_checkpoint(tmp_path))
    assert json.loads(json.dumps(facts)) == facts
    assert facts["format"] == "checkpoint folder"
    assert facts["totals"] == {
        "tensors": 4,
        "parameters": 66,
        "bytes": 264,
        "types": {"F32": {"tensors": 4, "parameters": 66, "bytes": 264}},
    }
    assert facts["tensors"][0] == {
        "name": "a",
        "shape": [4, 8],
        "dtype": "F32",
        "bytes": 128,
        "file": "model-00001-of-00002.safetensors",
    }
    assert facts["tokenizer"]["class"] == "T"
    assert facts["tokenizer"]["chat_template"] is True
    text = inspect.render(facts)
    assert "hidden_size: 8" in text
    assert "tie_word_embeddings: False" in text
    assert "scalar" in text
    assert "model-00002-of-00002.safetensors" in text


def test_the_root_of_the_config_says_more_than_the_section_of_the_text_model(tmp_path: Path) -> None:
    section = {"hidden_size": 8, "model_type": "inner", "torch_dtype": "float32"}
    config = {"model_type": "outer", "torch_dtype": "bfloat16", "text_config": section}
    (tmp_path / "config.json").write_text(json.dumps(config))
    safetensors(tmp_path / "model.safetensors", {"a": np.zeros((4, 8))})
    text = inspect.render(inspect.describe(open_checkpoint(tmp_path)))
    assert "  model_type: outer\n  hidden_size: 8\n  torch_dtype: bfloat16\n" in text


def test_every_file_of_a_tokenizer_is_listed(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "additional_chat_templates").mkdir()
    names = ["additional_chat_templates/tools.jinja", "qwen.tiktoken", "spiece.model", "tekken.json", "vocab.txt"]
    for name in [*names, "notes.txt"]:
        (tmp_path / name).write_text("{}")
    safetensors(tmp_path / "model.safetensors", {"a": np.zeros((4, 8))})
    facts = inspect.describe(open_checkpoint(tmp_path))["tokenizer"]
    assert [file["name"] for file in facts["files"]] == names
    assert facts["chat_template"] is True


def test_columns_are_aligned(tmp_path: Path) -> None:
    path = safetensors(tmp_path / "x.safetensors", {"a": np.zeros(3), "much.longer.name": np.zeros((10, 1000))})
    table = inspect.render(inspect.describe(open_checkpoint(path))).splitlines()[-3:]
    assert len({line.index("F32" if i else "type") for i, line in enumerate(table)}) == 1
    assert len({len(line) for line in table}) == 1  # sizes end at the same column


def test_a_gguf_file_is_described_with_its_keys(tmp_path: Path) -> None:
    facts = inspect.describe(open_checkpoint(gguf(tmp_path / "x.gguf")))
    assert json.loads(json.dumps(facts)) == facts
    assert facts["metadata"]["tokenizer.ggml.tokens"] == {
        "elem": "STRING",
        "count": 20,
        "first": [f"t{i}" for i in range(8)],
    }
    assert facts["tokenizer"]["special"] == {"bos": {"id": 99, "text": None}, "eos": {"id": 3, "text": "t3"}}
    assert facts["tensors"] == [{"name": "q", "shape": [3, 64], "dtype": "Q8_0", "bytes": 204, "file": "x.gguf"}]
    text = inspect.render(facts)
    for line in ("llama.zero: 0", "llama.flag: False", "llama.epsilon: 1e-05", "20 x STRING: ['t0'"):
        assert line in text


def test_the_text_is_safe_to_print_whatever_the_names(tmp_path: Path) -> None:
    names = ["", "a\0b", "\x1b[31mred", "tab\there", "x" * 5000, " blank ", "\u202eright to left", "é"]
    path = safetensors(tmp_path / "x.safetensors", {name: np.zeros(1) for name in names})
    for file in (path, gguf(tmp_path / "x.gguf")):
        facts = inspect.describe(open_checkpoint(file))
        lines = inspect.render(facts).split("\n")
        assert all(line.isprintable() for line in lines)
        assert max(map(len, lines)) < 250
    assert [tensor["name"] for tensor in inspect.describe(open_checkpoint(path))["tensors"]] == sorted(names)


def test_a_file_without_tensors_renders(tmp_path: Path) -> None:
    text = inspect.render(inspect.describe(open_checkpoint(safetensors(tmp_path / "x.safetensors", {}))))
    assert "0 tensors" in text
