"""OUT with ``{part}`` stands for a text model and its projector, made from one read by one job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf_reader
import pytest
from seeing_models import SHAPES, make_seeing_model

import streamconv
from streamconv import conversion
from streamconv.conversion import Options
from streamconv.errors import StreamconvError, UsageError
from streamconv.progress import Silent


@pytest.fixture(scope="module")
def model(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_seeing_model(data, tmp_path_factory.mktemp("seeing") / "m")


def contents(path: Path) -> tuple[dict[str, Any], dict[str, tuple[Any, ...]]]:
    """Keys and tensors of a file, but for the job that made it."""
    found = gguf_reader.read(path)
    keys = {key: value for key, value in found.keys.items() if not key.startswith("streamconv.")}
    return keys, {name: (t.ne, t.type, t.sha256) for name, t in found.tensors.items()}


def test_both_parts_are_as_if_made_alone(model: Path, tmp_path: Path) -> None:
    paths = streamconv.convert(model, tmp_path / "x-{part}.gguf", type="Q8_0")
    assert [path.name for path in paths] == ["x-model.gguf", "x-mmproj.gguf"]
    for path, alone in zip(paths, ({"type": "Q8_0"}, {"type": "F16", "mmproj": True}), strict=True):
        (single,) = streamconv.convert(model, tmp_path / f"alone-{path.name}", **alone)
        assert contents(path) == contents(single)


def test_every_type_of_the_model_and_one_projector_are_written(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "x-{type}-{part}.gguf"
    paths = streamconv.convert(model, out, type="Q8_0,BF16", mmproj_type="F32")
    assert [path.name for path in paths] == ["x-Q8_0-model.gguf", "x-BF16-model.gguf", "x-F32-mmproj.gguf"]


def test_what_either_part_has_is_not_called_left_out(model: Path, tmp_path: Path) -> None:
    assert conversion.prepare(model, tmp_path / "x.gguf", Options(type="F16")).left_out.keys() == SHAPES.keys()
    both = conversion.prepare(model, tmp_path / "x-{part}.gguf", Options(type="F16"))
    assert not both.left_out
    assert [output.arch for output in both.outputs] == ["gemma3", "clip"]


def test_rules_for_the_types_of_a_model_leave_its_projector_alone(model: Path, tmp_path: Path) -> None:
    options = Options(type="Q8_0", tensor_types=("ffn_up=Q4_0",), split_max_tensors=4)
    prepared = conversion.prepare(model, tmp_path / "x-{part}.gguf", options)
    text, tower = ({t.name: t.encoding.type.name for t in output.tensors} for output in prepared.outputs)
    assert text["blk.0.ffn_up.weight"] == "Q4_0"
    assert {kind for name, kind in tower.items() if "ffn_up" in name} == {"F16"}
    assert [len(output.files) > 1 for output in prepared.outputs] == [True, False]


@pytest.mark.parametrize("limit", [{"split_max_tensors": 4}, {"split_max_bytes": 1 << 20}])
def test_a_projector_alone_is_one_file_and_a_note_says_so(model: Path, tmp_path: Path, limit: dict[str, int]) -> None:
    prepared = conversion.prepare(model, tmp_path / "x.gguf", Options(type="F16", mmproj=True, **limit))
    assert [note for note in prepared.warnings if "--split-max-" in note and "has no effect" in note]
    assert [len(output.files) for output in prepared.outputs] == [1]


def test_one_name_verifies_both_parts_and_tells_their_state(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "x-{part}.gguf"
    streamconv.convert(model, out, type="F16")
    assert conversion.status(out)["status"] == "done"
    (tmp_path / "x-mmproj.gguf").write_bytes((tmp_path / "x-mmproj.gguf").read_bytes()[:-1] + b"!")
    assert [damage.path.name for damage in conversion.verify(out, Silent()).damages] == ["x-mmproj.gguf"]


@pytest.mark.parametrize(
    ("out", "settings", "said"),
    [
        ("x-{part}.gguf", {"mmproj": True}, "--mmproj for one"),
        ("x.gguf", {"mmproj_type": "F16"}, "--mmproj-type has no effect on one output"),
        ("x-{part}", {}, "{part} has no meaning for a safetensors folder"),
        ("x-{part}", {"mmproj_type": "F16"}, "{part} has no meaning for a safetensors folder"),
        ("x-{part}.gguf", {"type": "F16,Q8_0"}, "2 types need as many output names"),
        ("x-{part}.gguf", {"mmproj_type": "Q4_K_M"}, "a projector file is written in"),
        ("x-{part}.gguf", {"vocab_only": True}, "--vocab-only has no effect on a projector"),
    ],
)
def test_what_means_nothing_for_two_parts_is_refused(
    model: Path, tmp_path: Path, out: str, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError) as refused:
        streamconv.convert(model, tmp_path / out, **{"type": "F16", **settings})
    assert said in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_a_gguf_file_has_one_part(model: Path, tmp_path: Path) -> None:
    (path,) = streamconv.convert(model, tmp_path / "x.gguf", type="F16")
    with pytest.raises(UsageError, match="is already GGUF and has one part"):
        streamconv.convert(path, tmp_path / "y-{part}.gguf", type="Q8_0")


def test_a_model_without_a_projector_has_no_parts(data: Path, tmp_path: Path) -> None:
    with pytest.raises(StreamconvError, match="has no projector"):
        streamconv.convert(data / "checkpoints" / "gemma3-text" / "hf", tmp_path / "x-{part}.gguf", type="F16")
    assert not list(tmp_path.iterdir())
