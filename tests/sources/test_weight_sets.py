"""Folders that hold several sets of weights, or none: which is read, that the others are named, and what a layout is called."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from container_files import f32, write_safetensors
from torch_files import archive, program, storage, tensor

from streamconv import conversion
from streamconv.conversion import Options
from streamconv.errors import BadInput, InputMissing
from streamconv.sources import open_checkpoint

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    return folder


def whole(folder: Path, *names: str, size: int = 1) -> None:
    write_safetensors(folder / WHOLE, {name: f32(size) for name in names})


def shards(folder: Path, index: bool = True, size: int = 2, names: list[str] = SHARDS) -> None:
    """Tensors ``a`` and ``b`` of that size, in two files."""
    for tensor_name, file in zip("ab", names, strict=True):
        write_safetensors(folder / file, {tensor_name: f32(size)})
    if index:
        (folder / INDEX).write_text(json.dumps({"weight_map": dict(zip("ab", names, strict=True))}))


def torch(folder: Path, name: str = "pytorch_model.bin", size: int = 3) -> None:
    values = np.zeros(size, "<f4").tobytes()
    state = {key: tensor(storage("FloatStorage", key, size), (size,)) for key in "ab"}
    (folder / name).write_bytes(archive(program(state), dict.fromkeys("ab", values)))


def opened(folder: Path) -> tuple[set[int], str]:
    """The sizes of the tensors that were read, and the notes."""
    found = open_checkpoint(folder)
    assert set(found.tensors) >= {"a", "b"}
    return {rows.shape[0] for rows in found.tensors.values()}, " ".join(found.warnings)


@pytest.mark.parametrize("index", [True, False])
def test_the_whole_file_is_read_and_shards_beside_it_are_named(folder: Path, index: bool) -> None:
    whole(folder, "a", "b")
    shards(folder, index)
    sizes, notes = opened(folder)
    assert sizes == {1}
    assert f"'{SHARDS[0]}', '{SHARDS[1]}' is ignored" in notes
    assert WHOLE in notes


def test_shards_are_read_where_the_whole_file_lacks_what_their_index_lists(folder: Path) -> None:
    whole(folder, "a")
    shards(folder)
    sizes, notes = opened(folder)
    assert sizes == {2}
    assert f"{WHOLE} lacks 'b', which {INDEX} lists" in notes


@pytest.mark.parametrize("damaged", [b"", b"Entry not found", bytes(99)])
def test_shards_are_read_where_the_whole_file_is_damaged(folder: Path, damaged: bytes) -> None:
    (folder / WHOLE).write_bytes(damaged)
    shards(folder)
    sizes, notes = opened(folder)
    assert (sizes, f"({WHOLE} cannot be read); '{WHOLE}' is ignored" in notes) == ({2}, True)


@pytest.mark.parametrize("left", [0, 1])
def test_an_index_of_files_that_are_gone_gives_way_to_the_whole_file(folder: Path, left: int) -> None:
    whole(folder, "a", "b")
    shards(folder)
    for name in SHARDS[left:]:
        (folder / name).unlink()
    sizes, notes = opened(folder)
    assert sizes == {1}
    assert f"{INDEX} names files that are missing" in notes


def test_an_index_of_files_that_are_gone_gives_way_to_another_container(folder: Path) -> None:
    shards(folder)
    torch(folder)
    sizes, notes = opened(folder)
    assert (sizes, "'pytorch_model.bin' is ignored" in notes) == ({2}, True)
    for name in SHARDS:
        (folder / name).unlink()
    sizes, notes = opened(folder)
    assert (sizes, f"{INDEX} names files that are missing" in notes) == ({3}, True)


def test_shards_that_are_not_all_here_are_missed_and_the_other_set_is_named(folder: Path) -> None:
    shards(folder)
    torch(folder)
    (folder / SHARDS[1]).unlink()
    with pytest.raises(InputMissing, match="1 of 2 weight files not found") as refused:
        open_checkpoint(folder)
    assert "'pytorch_model.bin' is the model" in refused.value.hint


@pytest.mark.parametrize("name", ["consolidated.safetensors", "tf_model.h5", "flax_model.msgpack", "pytorch_model.bin"])
def test_every_other_form_of_the_weights_is_named(folder: Path, name: str) -> None:
    whole(folder, "a", "b")
    (folder / name).write_bytes(b"other weights")
    sizes, notes = opened(folder)
    assert (sizes, f"'{name}' is ignored" in notes) == ({1}, True)


def test_a_whole_torch_file_goes_before_its_shards(folder: Path) -> None:
    torch(folder)
    torch(folder, "pytorch_model-00001-of-00001.bin", size=4)
    (folder / "pytorch_model.bin.index.json").write_text(
        json.dumps({"weight_map": dict.fromkeys("ab", "pytorch_model-00001-of-00001.bin")})
    )
    sizes, notes = opened(folder)
    assert (sizes, "pytorch_model-00001-of-00001.bin' is ignored" in notes) == ({3}, True)


def test_an_index_that_names_the_whole_file_is_followed(folder: Path) -> None:
    whole(folder, "a")
    write_safetensors(folder / "model-extra.safetensors", {"b": f32(1)})
    (folder / INDEX).write_text(json.dumps({"weight_map": {"a": WHOLE, "b": "model-extra.safetensors"}}))
    assert opened(folder) == ({1}, "")


def test_files_without_an_index_that_hold_different_tensors_are_one_set(folder: Path) -> None:
    whole(folder, "a")
    write_safetensors(folder / "model-extra.safetensors", {"b": f32(1)})
    assert opened(folder) == ({1}, "")


def test_of_two_series_without_an_index_the_complete_one_is_read(folder: Path) -> None:
    shards(folder, index=False)
    write_safetensors(folder / "model-00003-of-00003.safetensors", {"a": f32(5)})
    sizes, notes = opened(folder)
    assert (sizes, "'model-00003-of-00003.safetensors' is ignored" in notes) == ({2}, True)
    for number in (1, 2):
        write_safetensors(folder / f"model-0000{number}-of-00003.safetensors", {"ab"[number - 1]: f32(5)})
    with pytest.raises(BadInput, match="parts of several models"):
        open_checkpoint(folder)


def test_a_variant_beside_the_whole_file_is_passed_over(folder: Path) -> None:
    whole(folder, "a", "b")
    write_safetensors(folder / "model.fp16.safetensors", {"a": f32(7), "b": f32(7)})
    sizes, notes = opened(folder)
    assert (sizes, "'model.fp16.safetensors' is ignored" in notes) == ({1}, True)


@pytest.mark.parametrize("output", ["out", "out.gguf"])
def test_what_is_passed_over_is_among_the_notes_of_a_plan(tiny_model: Path, tmp_path: Path, output: str) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "m"))
    (model / "pytorch_model.bin").write_bytes(b"other weights")
    notes = conversion.prepare(model, tmp_path / output, Options()).warnings
    assert [note for note in notes if "'pytorch_model.bin' is ignored" in note]


@pytest.mark.parametrize("config", [True, False])
@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["model_world_size_4_rank_0.pt", "extra_state_world_size_4_rank_0.pt"], r"one rank's part of the tensors. Merge"),
        (["pytorch_model_fsdp_0/"], "distributed checkpoint of torch"),
        (["__0_0.distcp", "__1_0.distcp", ".metadata"], "dcp_to_torch"),
        (["zero_pp_rank_0_mp_rank_00_optim_states.pt"], "zero_to_fp32.py"),
        (["global_step500/", "latest"], "a DeepSpeed checkpoint"),
        (["mp_rank_00/", "latest_checkpointed_iteration.txt"], "Megatron"),
        (["consolidated.safetensors", "params.json", "tekken.json"], "Mistral's own layout"),
        (["consolidated.00.pth", "params.json"], "Meta's own layout"),
        (["pytorch_model-00000-TP-common.safetensors", "pytorch_model-00001-TP-000.safetensors"], "as Grok 2 is published"),
        (["adapter_config.json", "adapter_model.safetensors"], "a LoRA adapter"),
        (["model_index.json", "unet/"], "a pipeline of diffusers"),
        (["tf_model.h5"], "weights of TensorFlow"),
        (["checkpoint-500/", "checkpoint-1500/"], "checkpoint-1500"),
        (["q-00001-of-00003.gguf", "q-00002-of-00003.gguf", "mmproj-q.gguf"], r"m/q-00001-of-00003.gguf, the first of its parts"),
        (["b.gguf", "a.gguf"], r"m/a.gguf, a whole model \(others: 'b.gguf'\)"),
        (["model.safetensors.aria2", "ema.safetensors"], r"'model.safetensors.aria2': this is a download that is not complete"),
        (["model.safetensors.incomplete"], "did not finish"),
        (["model.tar.gz"], "Unpack it"),
        (["openvino_model.xml", "openvino_model.bin"], "weights for another runtime"),
        (["training_args.bin", "optimizer.pt", "rng_state_0.pth"], "a trainer keeps this beside the weights"),
        (["training_args.bin", "my.pt"], r"It holds 'my.pt': if the weights"),
        (["ema.safetensors"], "'ema.safetensors': if the weights are in one of them, give that file"),
    ],
)  # fmt: skip
def test_a_layout_that_is_not_read_is_called_by_its_name(
    folder: Path, names: list[str], words: str, config: bool
) -> None:
    for name in names:
        (folder / name).mkdir() if name.endswith("/") else (folder / name).write_bytes(b"x")
    if not config:
        (folder / "config.json").unlink()
    with pytest.raises(InputMissing, match=r"has no (weights|config\.json)") as refused:
        open_checkpoint(folder)
    assert re.search(words, refused.value.hint), refused.value.hint


def test_weights_in_a_folder_inside_are_pointed_to(folder: Path) -> None:
    (folder / "weights").mkdir()
    (folder / "weights" / "model.safetensors").write_bytes(b"x")
    with pytest.raises(InputMissing) as refused:
        open_checkpoint(folder)
    assert f"give {folder / 'weights'}" in refused.value.hint


@pytest.mark.parametrize("adapter", ["adapter_model.safetensors", "adapter_model.bin", "adapters.safetensors"])
def test_an_adapter_beside_the_weights_is_said_to_be_left_out(tiny_model: Path, tmp_path: Path, adapter: str) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "m"))
    (model / adapter).write_bytes(b"x")
    assert not [note for note in open_checkpoint(model).warnings if "adapter" in note]
    (model / "adapter_config.json").write_text("{}")
    (note,) = (note for note in open_checkpoint(model).warnings if "adapter" in note)
    assert f"without the adapter beside them, {adapter!r}" in note


@pytest.mark.parametrize(
    "name", ["model_world_size_8_rank_3.pt", "zero_pp_rank_1_mp_rank_00_model_states.pt", "pytorch_model_fsdp.bin"]
)
def test_one_ranks_file_given_by_itself_is_called_so(tmp_path: Path, name: str) -> None:
    torch(tmp_path, name)
    with pytest.raises(BadInput, match="one rank's part"):
        open_checkpoint(tmp_path / name)


@pytest.mark.parametrize(
    ("module", "name", "words"),
    [
        ("torch.distributed.tensor", "DTensor", "one rank's part"),
        ("torch._utils", "_rebuild_wrapper_subclass", "one rank's part"),
        ("deepspeed.runtime.fp16.loss_scaler", "LossScaler", "zero_to_fp32.py"),
        ("megatron.core.enums", "ModelType", "a checkpoint of Megatron"),
        ("builtins", "eval", "nothing in the file is run"),
    ],
)
def test_what_a_pickle_asks_for_says_what_the_file_is_whatever_its_name(
    tmp_path: Path, module: str, name: str, words: str
) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(archive(b"\x80\x02}q\x00X\x01\x00\x00\x00a" + f"c{module}\n{name}\n".encode() + b"s.", {}))
    with pytest.raises(BadInput, match="asks for the global") as refused:
        open_checkpoint(path)
    assert words in refused.value.hint
