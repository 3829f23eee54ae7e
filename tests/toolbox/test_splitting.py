"""Files that are split and joined are those of gguf-split, and what is interrupted goes on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_gguf
from gguf_reader import Tensor, read

from streamconv import conversion, toolbox
from streamconv.conversion import Options, execution
from streamconv.engine import files
from streamconv.errors import BadInput, InputMissing, Stopped, UsageError
from streamconv.progress import Silent
from streamconv.toolbox.copies import Stored

Here = Callable[..., Any]
#: options -> the shards that gguf-split (llama.cpp, ggml 0.25.3) makes of the toy, and what it merges the first ones to
SPLIT = {
    ("--split-max-tensors", "2"): (
        "f31d4639aba96c2f8047b75eb76cc31de184499b38e7b88fa830352c1a08bd02",
        "02c25e3782edebc42272332b5b733dc2779123de0b73b1ab79e2ea649e7334ef",
        "d543d00af90864cfdd7be0a1f1fe2070cce63bfa19dc92e7e87680fd9adc1ef5",
        "11ad16c16c6dad5e41a4e137bcc98a4227426b20498071b4693f1b43c28d8b32",
    ),
    ("--split-max-size", "1M"): ("22ddce64a9c860073dab830de1f3519f85f597dc8ffe94bd31bd29b3708b6bd1",),
    (): ("22ddce64a9c860073dab830de1f3519f85f597dc8ffe94bd31bd29b3708b6bd1",),
    ("--split-max-tensors", "3", "--no-tensor-first-split"): (
        "311808c82151d654a18189bb4284438e773a65771f7e40a85df8842e99e69e1c",
        "78f563980278e6ab4b23af375053b12a826a66978413a8d3b08b3f19add4b792",
        "80861f26f603589c181123ff1b0a91c8d0a8dbe6d9fc2ed57c666695ca383d4c",
        "11ad16c16c6dad5e41a4e137bcc98a4227426b20498071b4693f1b43c28d8b32",
    ),
}
JOINED = "2ea0224ef5488c19240d6f81a8383e482a91ab642b1e82140ae87ab45462691c"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def shards(folder: Path, stem: str) -> list[Path]:
    return sorted(folder.glob(f"{stem}-0*.gguf"))


def tensors(path: Path) -> dict[str, Tensor]:
    return read(path).tensors


def digests(path: Path) -> list[tuple[str, str]]:
    """By tensor, of a file of any alignment."""
    found = toolbox.hash_file(path, ["sha256"])
    return [(h.name.rpartition(":")[2], h.digest) for h in found if h.name != str(path)]


def split(source: Path, output: Path, **options: object) -> list[Path]:
    conversion.execute(toolbox.prepare_split(source, output, Options.of(options)), Options(threads=1), Silent())
    return shards(output.parent, output.name)


@pytest.mark.parametrize("options", SPLIT)
def test_shards_are_those_of_gguf_split_byte_for_byte(
    options: tuple[str, ...], toy: Path, here: Here, tmp_path: Path
) -> None:
    assert here("split", toy, tmp_path / "s", *options).code == 0
    made = shards(tmp_path, "s")
    assert [p.name for p in made] == [f"s-{k + 1:05d}-of-{len(made):05d}.gguf" for k in range(len(made))]
    assert tuple(map(sha256, made)) == SPLIT[options]


def test_shards_are_joined_as_gguf_split_does_it(toy: Path, here: Here, tmp_path: Path) -> None:
    first = split(toy, tmp_path / "s", split_max_tensors=2)[0]
    assert here("join", first, tmp_path / "j.gguf").code == 0
    assert sha256(tmp_path / "j.gguf") == JOINED
    assert here("verify", tmp_path / "j.gguf").code == 0


def test_a_split_model_is_split_otherwise_as_if_it_had_been_whole(toy: Path, tmp_path: Path) -> None:
    first = split(toy, tmp_path / "s", split_max_tensors=3)[0]
    again = split(first, tmp_path / "t", split_max_tensors=2)
    assert tuple(map(sha256, again)) == SPLIT["--split-max-tensors", "2"]


def test_sizes_count_padding_and_a_tensor_that_is_too_large_has_a_shard_of_its_own(toy: Path, tmp_path: Path) -> None:
    sizes = [640, 12, 10, 136, 4, 204, 14]  # 640 32 32 160 32 224 32
    assert [t.n_bytes for t in Stored.open(toy, Options()).infos] == sizes
    made = split(toy, tmp_path / "s", split_max_bytes=224)
    assert [list(read(p).tensors) for p in made] == [["token_embd.weight"], ["a", "b", "c"], ["d"], ["e"], ["f"]]


def test_tensors_are_aligned_as_the_model_says(tmp_path: Path) -> None:
    keys = {**small_gguf.KEYS, "general.alignment": ("u32", 128)}
    whole = small_gguf.write(tmp_path / "a.gguf", keys, alignment=128)
    made = split(whole, tmp_path / "s", split_max_tensors=3)
    assert {name: digest for p in made for name, digest in digests(p)} == dict(digests(whole))
    assert made[0].stat().st_size % 128 == 0


def test_values_that_are_no_numbers_are_copied(tmp_path: Path) -> None:
    whole = small_gguf.write(tmp_path / "a.gguf", tensors=(("a", (32,), "F32"),))
    data = bytearray(whole.read_bytes())
    data[-128:] = np.full(32, np.nan, np.float32).tobytes()
    whole.write_bytes(data)
    (made,) = split(whole, tmp_path / "s")
    assert read(made).tensors["a"].data == bytes(data[-128:])


def test_tokens_that_are_not_utf8_are_kept(toy: Path, here: Here, tmp_path: Path) -> None:
    toy.write_bytes(toy.read_bytes().replace(b"</s>", b"<\xff\xfe>"))
    (made,) = split(toy, tmp_path / "s")
    assert b"<\xff\xfe>" in made.read_bytes()
    assert here("edit", toy, "--in-place", "--set", "toy.u8=1").code == 0
    assert here("edit", toy, tmp_path / "e.gguf", "--general-name", "longer than it was before").code == 0
    assert b"<\xff\xfe>" in (tmp_path / "e.gguf").read_bytes()
    assert here("hash", toy).code == 0


def test_the_same_command_again_has_nothing_to_do_and_another_one_is_refused(
    toy: Path, here: Here, tmp_path: Path
) -> None:
    out = tmp_path / "s"
    assert here("split", toy, out, "--split-max-tensors", 2).code == 0
    again = here("split", toy, out, "--split-max-tensors", 2)
    assert (again.code, "already complete" in again.out) == (0, True)
    assert here("verify", out).code == here("status", out).code == here("verify", shards(tmp_path, "s")[1]).code == 0
    # Other weights under the same header are another model.
    data = bytearray(toy.read_bytes())
    data[-100] ^= 1
    toy.write_bytes(data)
    assert here("split", toy, out, "--split-max-tensors", 2).code == 73
    assert here("split", toy, out, "--split-max-tensors", 2, "--update").code == 0
    assert here("join", shards(tmp_path, "s")[0], tmp_path / "j.gguf").code == 0
    assert {n: t.data for n, t in tensors(tmp_path / "j.gguf").items()} == {n: t.data for n, t in tensors(toy).items()}


def test_what_was_stopped_goes_on_and_ends_as_if_it_had_not_been(
    converted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = execution.budget_of
    monkeypatch.setattr(execution, "budget_of", lambda *args: replace(real(*args), window_bytes=16 << 10))

    class Impatient(Silent):
        def advance(self, n_bytes: int, name: str) -> None:
            super().advance(n_bytes, name)
            if self.done > 100_000:
                raise Stopped("enough")

    right = [p.read_bytes() for p in split(converted, tmp_path / "right", split_max_tensors=9)]
    options = Options(split_max_tensors=9, chunk_bytes=8 << 10, threads=1)
    with pytest.raises(Stopped):
        conversion.execute(toolbox.prepare_split(converted, tmp_path / "s", options), options, Impatient())
    status = conversion.status(tmp_path / "s")
    assert status["status"] == "unfinished"
    assert not shards(tmp_path, "s")
    outcome = conversion.execute(toolbox.prepare_split(converted, tmp_path / "s", options), options, Silent())
    assert outcome is not None
    assert outcome.resumed_bytes >= status["done"] > 0
    assert [p.read_bytes() for p in shards(tmp_path, "s")] == right


def test_a_dry_run_lists_the_shards_and_writes_nothing(toy: Path, here: Here, tmp_path: Path) -> None:
    told = here("split", toy, tmp_path / "s", "--split-max-tensors", 3, "--dry-run")
    assert [line.split("/")[-1].partition(",")[0] for line in told.out.splitlines()] == [
        f"s-0000{k}-of-00003.gguf: {n} tensors" for k, n in ((1, 3), (2, 3), (3, 1))
    ]
    assert [p.name for p in tmp_path.iterdir()] == ["toy.gguf"]


def test_what_cannot_be_done_is_refused(toy: Path, here: Here, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there already"):
        toolbox.prepare_split(toy, toy, Options())
    with pytest.raises(BadInput, match="is not split"):
        toolbox.prepare_join(toy, tmp_path / "j.gguf", Options())
    made = split(toy, tmp_path / "s", split_max_tensors=3)
    with pytest.raises(BadInput, match="is not the first file"):
        toolbox.prepare_join(made[1], tmp_path / "j.gguf", Options())
    with pytest.raises(UsageError, match="GGUF file"):
        toolbox.prepare_join(made[0], tmp_path / "j", Options())
    with pytest.raises(UsageError, match="input itself"):
        toolbox.prepare_join(made[0], made[0], Options())
    made[2].unlink()
    with pytest.raises(InputMissing, match="1 of 3 splits"):
        toolbox.prepare_join(made[0], tmp_path / "j.gguf", Options())
    assert here("join", toy, tmp_path / "j.gguf").code == 65


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(
    toy: Path, here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "free_bytes", lambda folder: 1000)
    told = here("split", toy, tmp_path / "s")
    assert told.code == 74
    assert "bytes are needed" in told.err
    assert [p.name for p in tmp_path.iterdir()] == ["toy.gguf"]


def test_a_finished_split_is_intact_until_a_byte_changes(toy: Path, here: Here, tmp_path: Path) -> None:
    made = split(toy, tmp_path / "s", split_max_tensors=3)
    data = bytearray(made[1].read_bytes())
    data[-40] ^= 4
    made[1].write_bytes(data)
    told = here("verify", tmp_path / "s")
    assert told.code == 65
    assert made[1].name in told.out
