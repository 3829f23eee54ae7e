"""Keys are changed in a new file or in place, keep their types and places, and what would harm a loader is refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gguf_reader import Gguf, read

from streamconv.engine import files, patching
from streamconv.engine.plan import job_folder
from streamconv.engine.record import record_path
from streamconv.errors import InputChanged

Here = Callable[..., Any]


@pytest.fixture
def model(converted: Path, tmp_path: Path) -> Path:
    """A fresh copy of a converted model, with its record."""
    for path in converted.parent.iterdir():
        shutil.copy2(path, tmp_path)
    return tmp_path / converted.name


@pytest.fixture
def edited(toy: Path, here: Here) -> Callable[..., Gguf]:
    """Function that edits the toy and reads the result."""

    def call(*options: str) -> Gguf:
        out = toy.with_name("out.gguf")
        told = here("edit", toy, out, *options, "--force")
        assert told.code == 0, told.err
        return read(out)

    return call


@pytest.mark.parametrize(
    ("key", "text", "found"),
    [
        ("general.name", "a=b: c", ("STRING", "a=b: c")), ("general.name", "", ("STRING", "")),
        ("toy.u8", "0", ("UINT8", 0)), ("toy.i8", "-1", ("INT8", -1)), ("toy.u16", "0xff", ("UINT16", 255)),
        ("toy.i64", "-9223372036854775808", ("INT64", -(1 << 63))), ("toy.u64", "18446744073709551615", ("UINT64", (1 << 64) - 1)),
        ("toy.f64", "1e-5", ("FLOAT64", 1e-5)), ("toy.f32", "0.5", ("FLOAT32", 0.5)), ("toy.flag", "false", ("BOOL", False)),
        ("toy.numbers", "[4]", ("ARRAY", ("INT32", [4]))), ("toy.flags", "[false]", ("ARRAY", ("BOOL", [False]))),
        ("toy.numbers", "[]", ("ARRAY", ("INT32", []))),
    ],
)  # fmt: skip
def test_a_key_that_is_there_keeps_its_type_and_its_place(
    key: str, text: str, found: tuple[str, Any], toy: Path, edited: Callable[..., Gguf]
) -> None:
    before, after = read(toy), edited("--set", f"{key}={text}")
    assert after.keys == before.keys | {key: found}
    assert list(after.keys) == list(before.keys)
    assert after.tensors == before.tensors


@pytest.mark.parametrize(
    ("new", "found"),
    [
        ("x.a:string=1", ("STRING", "1")), ("x.a:u8=1", ("UINT8", 1)), ("x.a:float32=2", ("FLOAT32", 2.0)),
        ("x.a:UINT64=3", ("UINT64", 3)), ('x.a:str[]=["a", "b"]', ("ARRAY", ("STRING", ["a", "b"]))),
        ("x.a:bool=True", ("BOOL", True)), ("x.a:f64[]=[1, 2.5]", ("ARRAY", ("FLOAT64", [1.0, 2.5]))),
    ],
)  # fmt: skip
def test_a_new_key_has_the_type_that_is_said_and_comes_last(
    new: str, found: tuple[str, Any], toy: Path, edited: Callable[..., Gguf]
) -> None:
    after = edited("--set", new)
    assert [*after.keys.items()] == [*read(toy).keys.items(), ("x.a", found)]


def test_keys_are_removed_renamed_and_may_then_be_set_in_another_type(toy: Path, edited: Callable[..., Gguf]) -> None:
    after = edited(
        "--remove-key", "toy.u8", "--remove-metadata", "toy.absent", "--rename-key", "toy.i8=toy.small",
        "--set", "toy.u8:string=no number",
    )  # fmt: skip
    before = read(toy).keys
    expected = {("toy.small" if key == "toy.i8" else key): value for key, value in before.items() if key != "toy.u8"}
    assert [*after.keys.items()] == [*expected.items(), ("toy.u8", ("STRING", "no number"))]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--set", "toy.u8=256"], "does not fit UINT8"), (["--set", "toy.u8=-1"], "does not fit UINT8"),
        (["--set", "toy.u8=1.5"], "not a whole number"), (["--set", "toy.flag=1"], "not true or false"),
        (["--set", "toy.f32=1e39"], "does not fit FLOAT32"), (["--set", "toy.f32=nan"], "does not fit"),
        (["--set", "toy.numbers=1"], "not a list"), (["--set", "toy.numbers=[true]"], "not of type i32"),
        (["--set", "toy.numbers=[1.5]"], "not of type i32"), (["--set", "toy.numbers=[2147483648]"], "does not fit INT32"),
        (["--set", "toy.u8:u16=1"], "is of type u8, which stays"), (["--set", "toy.absent=1"], "no such key"),
        (["--set", "toy.absent:u128=1"], "is no type"), (["--set", "toy.u8"], "KEY=VALUE"),
        (["--rename-key", "toy.absent=x"], "no key toy.absent"), (["--rename-key", "toy.u8=toy.i8"], "is there already"),
        (["--rename-key", "toy.u8"], "OLD=NEW"), (["--set", "split.count:u16=2"], "how the model is split"),
        (["--special-token", "eos", "absent"], "no token 'absent'"), (["--special-token", "boss", "a"], "no special token 'boss'"),
        (["--special-token-by-id", "eos", "5"], "the vocabulary has 5"), (["--special-token-by-id", "eos", "-1"], "not the number"),
        (["--chat-template", ""], "no text"), (["--chat-template", "[1"], "is not one"),
        (["--chat-template", "a", "--chat-template-file", "b"], "several options"), ([], "nothing is said"),
        (["--set", "general.alignment:u32=48"], "power of two"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("force", [[], ["--force"]])
def test_what_makes_no_sense_is_refused(options: list[str], says: str, force: list[str], toy: Path, here: Here) -> None:
    told = here("edit", toy, toy.with_name("out.gguf"), *options, *force)
    assert (told.code, says in told.err) == (64, True), told.err
    assert [p.name for p in toy.parent.iterdir()] == ["toy.gguf"]


def test_special_tokens_are_told_by_their_texts_or_numbers(toy: Path, here: Here) -> None:
    told = here(
        "edit", toy, "--in-place", "--special-token", "eos", "a", "--special-token", "bos", "</s>",
        "--special-token-by-id", "pad", "4",
    )  # fmt: skip
    assert (told.code, "2 tokens are 'a': 2 is taken (also 3" in told.out + told.err) == (0, True)
    keys = read(toy).keys
    ids = {key[15:]: value for key, value in keys.items() if key.endswith("_token_id")}
    assert ids == {
        "bos_token_id": ("UINT32", 1), "eos_token_id": ("UINT32", 2), "padding_token_id": ("UINT32", 4),
    }  # fmt: skip


def test_chat_templates_come_from_text_json_or_files_and_replace_all_others(
    toy: Path, edited: Callable[..., Gguf], here: Here
) -> None:
    folder = toy.parent
    named = [{"name": "default", "template": "{{ d }}"}, {"name": "tool use", "template": "{{ t }}"}]
    (folder / "t.jinja").write_text("{{ ü }}\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    both = {
        "tokenizer.chat_template.tool_use": ("STRING", "{{ t }}"),
        "tokenizer.chat_templates": ("ARRAY", ("STRING", ["tool_use"])), "tokenizer.chat_template": ("STRING", "{{ d }}"),
    }  # fmt: skip
    assert _templates(edited("--chat-template", json.dumps(named))) == both
    assert _templates(edited("--chat-template-config", str(folder / "tokenizer_config.json"))) == both
    assert here("edit", toy, "--in-place", "--chat-template", json.dumps(named)).code == 0
    assert _templates(edited("--chat-template-file", str(folder / "t.jinja"))) == {
        "tokenizer.chat_template": ("STRING", "{{ ü }}\n")
    }
    assert _templates(edited("--chat-template", "{{ one }}")) == {"tokenizer.chat_template": ("STRING", "{{ one }}")}


def _templates(file: Gguf) -> dict[str, Any]:
    return {key: value for key, value in file.keys.items() if key.startswith("tokenizer.chat_template")}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--set", "general.architecture=qwen2"], "general.architecture would change"),
        (["--set", "general.alignment:u32=64"], "general.alignment would change"),
        (["--remove-key", "llama.block_count"], "llama.block_count is missing"),
        (["--remove-key", "tokenizer.ggml.scores"], "0 elements instead of"),
        (["--set", 'tokenizer.ggml.tokens=["a"]'], "1 elements instead of"),
        (["--remove-key", "llama.context_length", "--set", "llama.context_length:string=9"], "stored as STRING"),
        (["--set", "llama.block_count=3"], "blk.2"),
    ],
)
def test_what_loaders_would_refuse_is_written_with_force_only(
    options: list[str], says: str, model: Path, here: Here
) -> None:
    out = model.with_name("out.gguf")
    told = here("edit", model, out, *options)
    assert (told.code, says in told.err) == (65, True), told.err
    assert not out.exists()
    told = here("edit", model, out, *options, "--force")
    assert told.code == 0
    assert here("verify", out).code == 0
    assert _data(out) == _data(model)


def _data(path: Path) -> list[Any]:
    from streamconv import toolbox

    return [h.digest for h in toolbox.hash_file(path, ["xxh64"])]


def test_a_small_change_in_place_is_one_write_into_the_file(model: Path, here: Here) -> None:
    before, inode = model.read_bytes(), model.stat().st_ino
    told = here("edit", model, "--in-place", "--set", "llama.context_length=77")
    assert (told.code, "in place" in told.out) == (0, True)
    after = model.read_bytes()
    assert (model.stat().st_ino, len(after)) == (inode, len(before))
    assert sum(a != b for a, b in zip(before, after, strict=True)) == 2  # 256 -> 77
    assert read(model).keys["llama.context_length"] == ("UINT32", 77)
    assert sorted(p.name for p in model.parent.iterdir()) == [".model.gguf.streamconv", "model.gguf"]


def test_a_larger_change_in_place_is_a_new_file_under_the_old_name(model: Path, here: Here) -> None:
    before, inode = read(model), model.stat().st_ino
    name = "x" * 600
    assert here("edit", model, "--in-place", "--general-name", name).code == 0
    assert model.stat().st_ino != inode
    assert read(model).keys == before.keys | {"general.name": ("STRING", name)}
    assert read(model).tensors == before.tensors
    assert sorted(p.name for p in model.parent.iterdir()) == [".model.gguf.streamconv", "model.gguf"]
    told = here("edit", model, "--in-place", "--general-name", name)
    assert (told.code, "nothing is to be changed" in told.out) == (0, True)


@pytest.mark.parametrize("mode", [0o600, 0o440])
def test_a_new_file_under_the_old_name_is_no_more_readable_than_the_old_one(mode: int, model: Path, here: Here) -> None:
    model.chmod(mode)
    assert here("edit", model, "--in-place", "--general-name", "x" * 600).code == 0
    assert model.stat().st_mode & 0o777 == mode


@pytest.mark.parametrize(
    ("options", "is_patch"),
    [
        (["--set=llama.context_length=77", "--set=llama.context_length=78"], True),
        (["--general-name=a longer name", f"--general-name={'x' * 600}"], False),
    ],
    ids=["patch", "new file"],
)
def test_verify_tells_an_edit_from_damage(options: list[str], is_patch: bool, model: Path, here: Here) -> None:
    for option in options:
        assert here("edit", model, "--in-place", option).code == 0
        told = here("verify", model)
        assert (told.code, "changed by streamconv edit" in told.out) == (0, is_patch)
    whole = model.read_bytes()
    for at, says in ((100, "the header differs"), (-5, "differs from what was written")):
        data = bytearray(whole)
        data[at] ^= 1
        model.write_bytes(data)
        told = here("verify", model)
        assert (told.code, says in told.out) == (65, True)


def test_convert_does_not_take_an_edited_output_for_its_own(model: Path, here: Here, data: Path) -> None:
    command = ["convert", data / "checkpoints" / "mistral-spm" / "hf", model, "--type", "F16"]
    assert here(*command).code == 0
    assert here("edit", model, "--in-place", "--set", "llama.context_length=77").code == 0
    told = here(*command)
    assert (told.code, "--update" in told.err) == (73, True)
    assert here(*command, "--update").code == 0
    assert read(model).keys["llama.context_length"] == ("UINT32", 256)


@pytest.mark.parametrize("name", ["Z", "a name that is longer than the one before, by far more than padding"])
def test_the_first_shard_is_edited_for_all_of_them(name: str, model: Path, here: Here) -> None:
    assert here("split", model, model.with_name("s"), "--split-max-tensors", 8).code == 0
    first, second, _ = sorted(model.parent.glob("s-0*"))
    rest = second.read_bytes()
    assert here("edit", first, "--in-place", "--general-name", name).code == 0
    assert read(first).keys["general.name"] == ("STRING", name)
    assert second.read_bytes() == rest
    told = here("verify", model.with_name("s"))
    assert (told.code, "changed by streamconv edit" in told.out) == (0, True)
    assert here("verify", first).code == here("verify", second).code == 0
    assert not record_path(first).exists()
    told = here("edit", second, "--in-place", "--general-name", name)
    assert (told.code, first.name in told.err) == (65, True)
    told = here("edit", first, "--in-place", "--set", "general.alignment:u32=4096", "--force")
    assert (told.code, "Give an OUT" in told.err) == (64, True)
    # As a new model, it is split where the old one is.
    assert here("edit", first, model.with_name("t.gguf"), "--general-name", "T").code == 0
    shards = sorted(model.parent.glob("t-0*"))
    assert [list(read(p).tensors) for p in shards] == [list(read(p).tensors) for p in sorted(model.parent.glob("s-0*"))]
    assert here("join", shards[0], model.with_name("j.gguf")).code == 0
    assert read(model.with_name("j.gguf")).keys["general.name"] == ("STRING", "T")


@pytest.mark.parametrize(
    "options",
    [
        ["--set=a.b:string=\udcff"], ["--set=\udcff:string=a"], ['--set=a.b:string[]=["\\ud800"]'], ["--general-name=\udcff"],
        ["--rename-key=general.name=\udcff"], ['--chat-template=[{"name": "default", "template": "\\ud800"}]'],
        ["--special-token-by-id", "eos", "9" * 5000],
    ],
)  # fmt: skip
def test_what_cannot_be_written_is_refused_before_anything_is(options: list[str], model: Path, here: Here) -> None:
    told = here("edit", model, model.with_name("out.gguf"), *options)
    assert told.code == 64, told.err
    assert not job_folder(model.with_name("out.gguf")).exists()


def test_bytes_behind_the_tensors_are_not_lost_unseen(model: Path, here: Here) -> None:
    with model.open("ab") as file:
        file.write(b"signature" * 9)
    assert here("edit", model, "--in-place", "--set", "llama.context_length=77").code == 0
    whole, longer = model.read_bytes(), ("--general-name", "x" * 600)
    told = here("edit", model, "--in-place", *longer)
    assert (told.code, "of no tensor" in told.err, model.read_bytes()) == (65, True, whole)
    told = here("edit", model, model.with_name("out.gguf"), *longer)
    assert (told.code, "of no tensor" in told.err) == (0, True)
    assert here("edit", model, "--in-place", *longer, "--force").code == 0
    assert not model.read_bytes().endswith(b"signature")


def test_only_a_file_of_ones_own_with_one_name_is_changed_in_place(model: Path, here: Here) -> None:
    link, other = model.with_name("link.gguf"), model.with_name("other.gguf")
    link.symlink_to(model)
    told = here("edit", link, "--in-place", "--general-name", "N")
    assert (told.code, "symbolic link" in told.err) == (73, True)
    os.link(model, other)
    told = here("edit", model, "--in-place", "--general-name", "N")
    assert (told.code, "hard links" in told.err) == (73, True)
    assert here("edit", model.with_name("m.gguf.zst"), "--in-place", "--general-name", "N").code == 64
    assert here("edit", model, "--general-name", "N").code == 64
    assert here("edit", model, other, "--in-place", "--general-name", "N").code == 64
    assert read(model).keys["general.name"] != ("STRING", "N")


@pytest.mark.parametrize(
    ("option", "how"), [("--set=llama.context_length=77", "in place"), ("--general-name=much longer", "a new file")]
)
def test_a_dry_run_prints_both_values_and_writes_nothing(option: str, how: str, model: Path, here: Here) -> None:
    before, record = model.read_bytes(), (model.parent / ".model.gguf.streamconv").read_bytes()
    told = here("edit", model, "--in-place", option, "--dry-run")
    assert (told.code, how in told.out, " -> " in told.out.splitlines()[0]) == (0, True, True)
    facts = json.loads(here("edit", model, "--in-place", option, "--dry-run", "--json").out)
    assert facts["how"] == ("patch" if how == "in place" else "copy")
    assert (model.read_bytes(), (model.parent / ".model.gguf.streamconv").read_bytes()) == (before, record)
    assert len(list(model.parent.iterdir())) == 2


def test_a_file_that_changes_meanwhile_is_left_as_it_is(toy: Path) -> None:
    data = toy.read_bytes()
    before, after = data[:600], data[:40] + b"x" + data[41:600]
    toy.write_bytes(data[:50] + b"y" + data[51:])
    with pytest.raises(InputChanged):
        patching.patch(toy, before, after)
    assert toy.read_bytes() == data[:50] + b"y" + data[51:]


def test_a_job_that_is_about_to_write_the_file_goes_first(model: Path, here: Here, data: Path) -> None:
    from streamconv.conversion import Options, execution, prepare

    plan = prepare(data / "checkpoints" / "mistral-spm" / "hf", model, Options(type="Q8_0")).plan
    execution.open_job(plan, Options(force=True), _Quiet()).close()
    for option in ("--set=llama.context_length=77", "--general-name=longer"):
        told = here("edit", model, "--in-place", option)
        assert (told.code, "unfinished job" in told.err) == (78, True)
    assert job_folder(model).is_dir()
    assert files.read_own(job_folder(model) / "index.wal")


class _Quiet:
    def message(self, text: str) -> None:
        raise AssertionError(text)


def test_a_change_lies_in_one_sector_or_is_none_that_a_cut_makes_whole() -> None:
    a = bytes(2000)
    for start, stop, fits in (
        (0, 512, True),
        (511, 512, True),
        (511, 513, False),
        (512, 1024, True),
        (1999, 2000, True),
    ):
        b = a[:start] + b"x" * (stop - start) + a[stop:]
        assert patching.changed_range(a, b) == ((start, stop) if fits else None)
    assert patching.changed_range(a, a) is None
    assert patching.changed_range(a, a + b"x") is None
