"""A packed checkpoint is read as the plain one is, and becomes the same files again."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import zstandard
from gguf_reader import read
from small_models import read_safetensors, write_safetensors
from torch_files import checkpoint as torch_checkpoint

from packing.conftest import Pack, bf16, files_of
from streamconv import convert
from streamconv.conversion import Options, prepare
from streamconv.kernels import load
from streamconv.sources import FrameCache, open_checkpoint
from streamconv.sources.pack import PackFile


def test_packing_and_unpacking_gives_the_same_files_bit_for_bit(model: Path, command: Pack, tmp_path: Path) -> None:
    assert command("pack", model, tmp_path / "p") == 0
    names = {p.name for p in (tmp_path / "p").iterdir()}
    assert "model-00001-of-00002.safetensors.scpack" in names
    assert "model-00001-of-00002.safetensors" not in names
    assert command("unpack", tmp_path / "p", tmp_path / "u") == 0
    assert files_of(tmp_path / "u") == files_of(model)


@pytest.mark.parametrize("io", ["mmap", "pread"])
def test_every_range_of_a_packed_file_is_that_of_the_plain_one(
    model: Path, command: Pack, tmp_path: Path, io: str
) -> None:
    assert command("pack", model, tmp_path / "p") == 0
    rng = np.random.default_rng(1)
    for plain in model.glob("*.safetensors"):
        data = plain.read_bytes()
        file = PackFile(tmp_path / "p" / f"{plain.name}.scpack", io, FrameCache(64 << 20))  # type: ignore[arg-type]
        assert file.size == len(data)
        assert file.facts.sha256 == hashlib.sha256(data).hexdigest()
        for _ in range(100):
            start, stop = sorted(rng.integers(0, len(data) + 1, 2))
            assert file.view(int(start), int(stop - start)).tobytes() == data[start:stop]
            file.release(int(start), int(stop - start))


def test_tensors_are_read_in_place_by_rows(model: Path, command: Pack, tmp_path: Path) -> None:
    assert command("pack", model, tmp_path / "p") == 0
    plain, packed = open_checkpoint(model), open_checkpoint(tmp_path / "p")
    assert [*packed.tensors] == [*plain.tensors]
    for name, rows in plain.tensors.items():
        n = int(np.prod(rows.shape[:-1]))
        for start in range(0, n, 7):
            stop = min(start + 7, n)
            assert packed.tensors[name].read(start, stop).tobytes() == rows.read(start, stop).tobytes()
    assert [i.content for i in packed.inputs] == [i.content for i in plain.inputs]


def test_every_frame_is_an_ordinary_one_of_zstandard(model: Path, command: Pack, tmp_path: Path) -> None:
    assert command("pack", model, tmp_path / "p") == 0
    path = tmp_path / "p" / "model-00001-of-00002.safetensors.scpack"
    file = PackFile(path, "mmap", FrameCache(64 << 20))
    data, plain = path.read_bytes(), (model / path.name.removesuffix(".scpack")).read_bytes()
    at = file._frames.packed_at
    planes, at_content = 0, 0
    for n in range(1, len(at) - 2):
        found = zstandard.ZstdDecompressor().decompress(data[at[n] : at[n + 1]])
        content = plain[at_content : at_content + len(found)]
        if file._planes[n]:
            planes += 1
            words = np.frombuffer(content, "<u2")
            turned = (words << 1) | (words >> 15)
            content = (turned >> 8).astype(np.uint8).tobytes() + (turned & 255).astype(np.uint8).tobytes()
        assert found == content, n
        at_content += len(found)
    assert planes == 6  # of 18 000 bytes, and of the odd tensor
    assert at_content == len(plain)


def test_planes_are_the_same_in_the_kernel_and_in_numpy() -> None:
    data = np.random.default_rng(0).integers(0, 256, 2 * 65536 + 6).astype(np.uint8)
    planes, again = np.empty_like(data), np.empty_like(data)
    kernels = load(".sources.kernels.planes")
    kernels.split(data, planes)
    words = data.view("<u2")
    turned = (words << 1) | (words >> 15)
    assert (planes == np.concatenate([turned >> 8, turned & 255]).astype(np.uint8)).all()
    kernels.join(planes, again)
    assert (again == data).all()


def test_exponents_compress_and_numbers_of_other_types_are_packed_as_they_are(command: Pack, tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((400, 1000)) * 0.02
    sizes = {}
    for dtype, words in (("BF16", bf16(values)), ("F16", values.astype("f2")), ("F32", values.astype("f4"))):
        folder = tmp_path / dtype
        folder.mkdir()
        write_safetensors(folder / "model.safetensors", {"x": (dtype, words)})
        assert command("pack", folder / "model.safetensors", tmp_path / f"{dtype}p") == 0
        packed = tmp_path / f"{dtype}p" / "model.safetensors.scpack"
        sizes[dtype] = packed.stat().st_size / words.nbytes
    assert sizes["BF16"] < 0.70
    assert sizes["F16"] < 0.88
    assert sizes["F32"] < 0.97


def test_a_conversion_from_the_pack_is_the_same_job_as_one_from_the_plain_files(
    command: Pack, tiny_model: Path, tmp_path: Path
) -> None:
    plain, packed = tmp_path / "plain" / "tiny", tmp_path / "packed" / "tiny"
    shutil.copytree(tiny_model, plain)
    packed.parent.mkdir()
    assert command("pack", plain, packed) == 0
    out = tmp_path / "x.gguf"
    convert(plain, out, type="q8_0")
    made = out.read_bytes()
    assert (
        prepare(packed, out, Options(type="q8_0")).plan.fingerprint
        == prepare(plain, out, Options(type="q8_0")).plan.fingerprint
    )
    assert command("convert", packed, out, "--type", "q8_0") == 0  # it is complete
    out.unlink()
    convert(packed, out, type="q8_0")
    assert out.read_bytes() == made


def test_commands_read_the_pack_by_the_plain_names_too(command: Pack, tiny_model: Path, tmp_path: Path) -> None:
    assert command("pack", tiny_model, tmp_path / "p") == 0
    assert command("inspect", tmp_path / "p" / "model.safetensors") == 0
    assert command("inspect", tmp_path / "p" / "model.safetensors.scpack") == 0
    assert "architectures" in open_checkpoint(tmp_path / "p").config


@pytest.mark.parametrize("type_", ["bf16", pytest.param("q8_0", marks=pytest.mark.slow)])
def test_gguf_shards_are_packed_checked_and_converted(
    command: Pack, tiny_model: Path, tmp_path: Path, type_: str
) -> None:
    source = tmp_path / "g"
    source.mkdir()
    convert(tiny_model, source / "x.gguf", type=type_, split_max_tensors=30)
    first = source / "x-00001-of-00003.gguf"
    assert command("pack", first, tmp_path / "p") == 0
    packed = tmp_path / "p" / f"{first.name}.scpack"
    assert command("check", packed) == 0
    assert command("convert", packed, tmp_path / "y.gguf", "--copy") == 0
    assert read(tmp_path / "y.gguf").tensors.keys() == {name for p in source.glob("*.gguf") for name in read(p).tensors}
    assert command("unpack", tmp_path / "p", tmp_path / "u") == 0
    assert files_of(tmp_path / "u") == files_of(source)


def test_files_of_torch_are_packed_with_their_padding(command: Pack, tiny_model: Path, tmp_path: Path) -> None:
    source = tmp_path / "t"
    source.mkdir()
    tensors = read_safetensors(tiny_model / "model.safetensors")
    few = {name: tensors[name] for name in sorted(tensors)[:4]}
    (source / "pytorch_model.bin").write_bytes(torch_checkpoint(few))
    (source / "config.json").write_text("{}")
    assert command("pack", source, tmp_path / "p") == 0
    packed = tmp_path / "p" / "pytorch_model.bin.scpack"
    assert packed.stat().st_size < 0.75 * (source / "pytorch_model.bin").stat().st_size
    opened = open_checkpoint(tmp_path / "p")
    assert [i.content for i in opened.inputs] == [i.content for i in open_checkpoint(source).inputs]
    assert command("unpack", tmp_path / "p", tmp_path / "u") == 0
    assert files_of(tmp_path / "u") == files_of(source)


def test_a_compressed_file_is_packed_by_what_it_holds(model: Path, command: Pack, tmp_path: Path) -> None:
    plain = model / "model-00001-of-00002.safetensors"
    data = plain.read_bytes()
    (model / f"{plain.name}.zst").write_bytes(zstandard.ZstdCompressor().compress(data))
    plain.unlink()
    assert command("pack", model, tmp_path / "p") == 0
    assert command("unpack", tmp_path / "p", tmp_path / "u") == 0
    assert (tmp_path / "u" / plain.name).read_bytes() == data


def test_bytes_of_the_pack_depend_on_neither_threads_nor_memory(model: Path, command: Pack, tmp_path: Path) -> None:
    assert command("pack", model, tmp_path / "p", "--threads", "1") == 0
    assert command("pack", model, tmp_path / "q", "--threads", "4", "--io", "pread") == 0
    assert files_of(tmp_path / "p") == files_of(tmp_path / "q")


def test_a_finished_pack_is_left_alone_verified_and_replaced_when_its_source_changes(
    model: Path, command: Pack, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from streamconv.cli import main

    assert command("pack", model, tmp_path / "p") == 0
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "p").iterdir()}
    assert main(["pack", str(model), str(tmp_path / "p")]) == 0
    assert "already complete" in capfd.readouterr().out
    for path in model.glob("*.safetensors"):
        path.touch()
    assert command("pack", model, tmp_path / "p") == 0  # other times, the same contents
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "p").iterdir()} == before
    assert command("verify", tmp_path / "p") == 0
    (model / "tokenizer.json").write_text("[]")
    assert command("pack", model, tmp_path / "p") == 73
    assert command("pack", model, tmp_path / "p", "--update") == 0
    assert (tmp_path / "p" / "tokenizer.json").read_text() == "[]"


def test_json_tells_the_files(model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from streamconv.cli import main

    assert main(["pack", str(model), str(tmp_path / "p"), "--json"]) == 0
    told = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert sum(Path(p).stat().st_size for p in told["files"]) == told["total"]


def test_a_packed_file_that_was_modified_is_replaced_by_force_only(model: Path, command: Pack, tmp_path: Path) -> None:
    folder = tmp_path / "p"
    assert command("pack", model, folder) == 0
    config = folder / "config.json"
    whole = config.read_bytes()
    config.write_bytes(whole + b" ")
    assert command("pack", model, folder) == command("pack", model, folder, "--update") == 73
    assert command("pack", model, folder, "--force") == 0
    assert config.read_bytes() == whole
