"""Digests are the lines that gguf-hash prints, and a manifest of them tells whether a file is still the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streamconv import toolbox

Here = Callable[..., Any]
#: what gguf-hash (llama.cpp, ggml 0.25.3) prints of the toy with --all --uuid, the last lines
LAST = """\
xxh64     b15fecae7560b2ba  toy.gguf:f
sha1      ad99a403dfdaca1c9e78dfa783245848fdbafa46  toy.gguf:f
sha256    2849d539b3d4d0ffbb9396f05fbf4c16ec7c47195ffbb203d9f422e613bce9aa  toy.gguf:f
xxh64     87535fb31cecaabb  toy.gguf
sha1      ddd82aa136b223ab34288447535a7225c5683688  toy.gguf
sha256    0282ab75470f65547cf2c213c0451574d3d23787f2e9387ffa3dd45a35bff0a8  toy.gguf
uuid      a6d2f630-5e67-5123-a60e-2e68e90503c4  toy.gguf
""".splitlines()


@pytest.fixture(autouse=True)
def _in_its_folder(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(toy.parent)


def test_lines_are_those_of_gguf_hash(here: Here) -> None:
    lines = here("hash", "--all", "--uuid", "toy.gguf").out.splitlines()
    assert lines[-7:] == LAST
    assert len(lines) == 7 * 3 + 4


def test_without_a_choice_it_is_xxh64_and_without_layers_only_the_whole(here: Here) -> None:
    assert here("hash", "--no-layer", "toy.gguf").out.splitlines() == [LAST[3]]
    assert here("hash", "--no-layer", "--sha1", "--uuid", "toy.gguf").out.splitlines() == [LAST[4], LAST[6]]
    assert here("hash", "toy.gguf", "--quiet").out == ""


def test_blocks_and_threads_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = list(toolbox.hash_file("toy.gguf", toolbox.ALGORITHMS))
    monkeypatch.setattr("streamconv.toolbox.hashing._BLOCK_BYTES", 100)
    assert list(toolbox.hash_file("toy.gguf", toolbox.ALGORITHMS, n_threads=3, io="pread")) == whole


@pytest.mark.parametrize("asked", [["--all", "--uuid"], ["--uuid"], ["--sha256", "--no-layer"]])
def test_a_file_is_what_its_manifest_says_until_a_weight_changes(asked: list[str], toy: Path, here: Here) -> None:
    manifest = toy.with_name("manifest")
    manifest.write_text(here("hash", *asked, "toy.gguf").out)
    assert here("hash", "toy.gguf", "-c", manifest).code == 0
    told = here("hash", *asked, "--check", manifest, "toy.gguf")
    assert (told.code, told.out.splitlines()[-1]) == (0, f"Verification results for {manifest} - Success")
    assert all(line.endswith("  -  Ok") for line in told.out.splitlines()[1:-2])
    assert here("edit", "toy.gguf", "--in-place", "--set", "general.name=Another name that is longer").code == 0
    assert here("hash", *asked, "-c", manifest, "toy.gguf").code == 0
    data = bytearray(toy.read_bytes())
    data[-20] ^= 1  # of the last tensor
    toy.write_bytes(data)
    told = here("hash", *asked, "-c", manifest, "toy.gguf", "--json")
    assert told.code == 65
    facts = json.loads(told.out.splitlines()[-1])
    assert facts["status"] == "Failure"
    wrong = {d["name"] for d in facts["digests"] if d["verdict"] == "Mismatch"}
    assert wrong == {"toy.gguf"} | ({"toy.gguf:f"} if asked[0] == "--all" else set())


def test_a_manifest_of_other_files_or_of_nothing_is_no_proof(toy: Path, here: Here) -> None:
    manifest = toy.with_name("manifest")
    manifest.write_text("xxh64     87535fb31cecaabb  other.gguf\n")
    told = here("hash", "-c", manifest, "toy.gguf")
    assert (told.code, told.out.rsplit("- ", 1)[1]) == (65, "Manifest Missing Entry\n")
    manifest.write_text("nothing of the kind\n")
    assert here("hash", "-c", manifest, "toy.gguf").code == 65
    assert here("hash", "-c", "absent", "toy.gguf").code == 66
    assert here("hash", "absent.gguf").code == 66


def test_a_tensor_of_the_manifest_that_the_file_lacks_is_a_failure(toy: Path, here: Here) -> None:
    manifest = toy.with_name("manifest")
    manifest.write_text(here("hash", "toy.gguf").out.replace("toy.gguf:f\n", "toy.gguf:g\n"))
    told = here("hash", "-c", manifest, "toy.gguf")
    assert told.code == 65
    lines = told.out.splitlines()
    assert [line.split()[2:] for line in lines if line.endswith("Missing")] == [["toy.gguf:g", "-", "Missing"]]
    assert lines[-1].endswith(" - Failure")
    assert here("hash", "--no-layer", "-c", manifest, "toy.gguf").code == 0
