"""The tests' own files are opened by the reader of the gguf package, which would not let a wrong one pass."""

from __future__ import annotations

from pathlib import Path

import gguf as package
import gguf_witness
import pytest

from streamconv import cli
from streamconv.metadata import Metadata
from streamconv.quant.types import TYPES
from streamconv.targets import gguf
from streamconv.targets.layout import TensorInfo


@pytest.mark.parametrize("options", [[], ["--split-max-size", "1M"]])
def test_every_gguf_file_is_read_by_the_package_before_it_gets_its_name(
    options: list[str], tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    real = gguf_witness.Reader
    assert issubclass(real, package.GGUFReader)

    def noted(path: Path) -> package.GGUFReader:
        assert not list(tmp_path.glob("*.gguf"))
        reader = real(path)
        read.append(len(reader.tensors))
        return reader

    monkeypatch.setattr(gguf_witness, "Reader", noted)
    assert cli.main(["convert", str(tiny_model), str(tmp_path / "o.gguf"), "--quiet", *options]) == 0
    assert len(read) == len(list(tmp_path.glob("*.gguf")))
    assert sum(read) > 10


def test_a_tensor_elsewhere_than_planned_is_seen(tmp_path: Path) -> None:
    tensors = [TensorInfo(name, (4, 8), TYPES["F32"]) for name in ("a", "b")]
    metadata = Metadata()
    metadata.string("general.architecture", "llama")
    (file,) = gguf.layout(tmp_path / "o.gguf", metadata, tensors)
    data = file.header + bytes(file.size - len(file.header))
    file.path.write_bytes(data)
    gguf_witness.accept(file, tensors, file.path)
    file.path.write_bytes(data.replace(b"\x01\0\0\0\0\0\0\0b", b"\x01\0\0\0\0\0\0\0c"))
    with pytest.raises(AssertionError):
        gguf_witness.accept(file, tensors, file.path)
