"""Our weight files in the real gemma.cpp: it loads them, and computes the logits that it computed from its own writer's files."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from reference_data import reference_dir

sys.path.insert(0, str(Path(__file__).resolve().parent / "gemma_cpp"))
import build
import sbs_files as files
from fuzzing import damaged

import streamconv
from streamconv import sbs
from streamconv.check import check_file

pytestmark = [pytest.mark.oracle, pytest.mark.slow]

_MODELS = (reference_dir() or Path("absent")) / "golden" / "sbs" / "model"
_NONE = [pytest.param("", marks=pytest.mark.skip("no reference data"))]
CASES = sorted(path.name.removesuffix(".logits.npz") for path in _MODELS.glob("*/*.logits.npz")) or _NONE
#: of gemma.cpp's models, the one that each case is
_SPECIFIERS = {"gemma2": "gemma2-2b-it", "gemma3v": "gemma3-4b", "gemma3": "gemma3-1b", "pg1": "paligemma2-3b-224"}
_SPECIFIERS["pg2"] = _SPECIFIERS["pg1"]

Floats = NDArray[np.float32]
Run = Callable[..., tuple[Floats, list[int]] | None]


@pytest.fixture(scope="session")
def gemma_cpp() -> Run:
    """Function of a file and tokens: the logits behind them and the tokens that gemma.cpp goes on with; None where it aborts."""
    program = build.program()
    if not program.exists():
        pytest.skip(f"no gemma.cpp: `python {build.__file__}` builds it from its public source")

    def run(file: Path, tokens: list[int], n: int = 4) -> tuple[Floats, list[int]] | None:
        command = [str(program), str(file), str(n), *map(str, tokens)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=120, check=False)
        said = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line.strip()}
        if done.returncode or "tokens" not in said:
            return None
        return np.array(said["logits"], np.float32), [*map(int, said["tokens"])]

    return run


def case(name: str) -> tuple[Path, list[int], Floats]:
    """The file of a case, the tokens it was asked with, and the logits that were recorded."""
    folder = _MODELS / name.split(".")[0]
    recorded = np.load(folder / f"{name}.logits.npz")
    tokens = json.loads((folder / f"{name}.expected.json").read_text())["token_ids"]
    return folder / f"{name}.sbs", [*map(int, tokens)], recorded["gemma_cpp"].ravel()


@pytest.mark.parametrize("name", CASES)
def test_the_program_here_computes_what_was_recorded(gemma_cpp: Run, name: str) -> None:
    file, tokens, recorded = case(name)
    found = gemma_cpp(file, tokens)
    assert found is not None
    assert np.array_equal(found[0], recorded)


@pytest.mark.parametrize("name", CASES)
def test_our_files_compute_the_same(gemma_cpp: Run, name: str, tmp_path: Path) -> None:
    file, tokens, recorded = case(name)
    model, kind, layout = name.split(".")
    out = tmp_path / "out.sbs"
    settings = {"sbs_layout": layout, "sbs_model": _SPECIFIERS[model.split("_")[0]], "max_seq_len": 64}
    streamconv.convert(file.parent, out, type=kind, **settings)  # type: ignore[arg-type]
    assert not [f for f in check_file(out) if f.severity == "error"]
    found = gemma_cpp(out, tokens)
    assert found is not None
    assert np.array_equal(found[0], recorded)
    assert found[1] == (gemma_cpp(file, tokens) or (None, None))[1]


@pytest.mark.parametrize("name", CASES)
def test_what_a_folder_made_of_a_file_becomes_computes_the_same(gemma_cpp: Run, name: str, tmp_path: Path) -> None:
    file, tokens, recorded = case(name)
    model, kind, layout = name.split(".")
    if kind not in ("bf16", "sfp"):
        pytest.skip("values are rounded on the way")
    streamconv.convert(file, tmp_path / "folder")
    settings = {"sbs_layout": layout, "sbs_model": _SPECIFIERS[model.split("_")[0]], "max_seq_len": 64}
    streamconv.convert(tmp_path / "folder", tmp_path / "again.sbs", type=kind, **settings)  # type: ignore[arg-type]
    found = gemma_cpp(tmp_path / "again.sbs", tokens)
    assert found is not None
    assert np.array_equal(found[0], recorded)


def encoded(key: str, kind: str) -> Callable[[files.Toy], object]:
    """A change: a tensor in another type, and the file with it."""

    def change(toy: files.Toy) -> None:
        rows, cols = toy.toc[key][-4:-2]
        data, scale = sbs.encode(np.linspace(-1, 1, rows * cols, dtype=np.float32), kind)
        toy.blobs[key], number = data.tobytes(), files.TYPES[kind.upper()]
        toy.toc[key] = files.entry(key, number, rows, cols, float(scale))
        toy.fields["weight"] = number

    return change


def stray(number: int) -> Callable[[files.Toy], object]:
    """A change: a tensor that the model does not have, of the type with that number."""

    def change(toy: files.Toy) -> None:
        toy.toc["y"], toy.blobs["y"] = files.entry("y", number, 1, 4), b"x"

    return change


#: what it is told of -> change of a file; the program must abort where ``check`` says so, and not where it does not
BREAKS: dict[str, Callable[[files.Toy], object]] = {
    "nothing": lambda toy: None,
    "missing norm": lambda toy: toy.drop("pre_att_ns_1"),
    "missing linear_w": lambda toy: toy.drop("linear_w_1"),
    "missing qkv2_w": lambda toy: toy.drop("qkv2_w_0"),
    "missing gating2_w": lambda toy: toy.drop("gating2_w_0"),
    "missing att_w": lambda toy: toy.drop("att_w_0"),
    "both layouts": lambda toy: toy.put("att_ein_0", np.ones((files.H * files.D, files.Q))),
    "another shape": lambda toy: toy.put("linear_w_0", np.ones((files.F, files.D))),
    "wrong weight": lambda toy: toy.fields.update(weight=3),
    "retired model": lambda toy: toy.fields.update(model=8),
    "unknown wrapping": lambda toy: toy.fields.update(wrapping=4),
    "large suffix": lambda toy: toy.blobs.update(prov_1999=b"x"),
    "large number in the middle": lambda toy: toy.blobs.update(prov_1999_a=b"x"),
    "toc without blob": lambda toy: toy.blobs.pop("linear_w_0"),
    "blob without toc": lambda toy: toy.toc.pop("linear_w_0"),
    "extra blob": lambda toy: toy.blobs.update(extra=b"x"),
    "other blob size": lambda toy: toy.blobs.update(linear_w_0=toy.blobs["linear_w_0"] + b"x"),
    "no tokenizer at all": lambda toy: setattr(toy, "tokenizer", b"rubbish"),
    "wide heads": lambda toy: toy.layers[0].update(qkv_dim=2048),
    "gating of two types": lambda toy: toy.put("gating1_w_0", np.ones((files.F, files.D)), "F32"),
    "norm of F32": lambda toy: toy.put("pre_att_ns_0", np.ones(files.D), "F32"),
    "few layers": lambda toy: toy.fields.update(num_layers=3),
    "unknown activation": lambda toy: toy.layers[1].update(activation=1),
    "biases": lambda toy: toy.layers[1].update(ff_biases=1),
    "unknown scale of queries": lambda toy: toy.fields.update(query_scale=2),
    "text layer of images": lambda toy: toy.layers[1].update(type=1),
    "three key heads": lambda toy: toy.layers[0].update(kv_heads=3),
    "NUQ in att_w": encoded("att_w_0", "nuq"),
    "SFP norm": encoded("pre_att_ns_0", "sfp"),
    "SFP embedding": encoded("c_embedding", "sfp"),
    "I8 matrix": encoded("linear_w_0", "i8"),
    "tensor of another model": lambda toy: toy.put("gr_conv_w_0", np.ones((4, 4))),
    "another tensor of F64": stray(5),
    "another tensor of no type": stray(9),
}  # fmt: skip
#: the same of a model with images, and of the layout of the exporter
OF_IMAGES: dict[str, Callable[[files.Toy], object]] = {
    "nothing": lambda toy: None,
    "old number of image layers": lambda toy: [layer.update(type=2) for layer in toy.image_layers],
    "missing head bias": lambda toy: toy.drop("img_head_bias"),
    "bias of BF16": lambda toy: toy.put("qkv_ein_b_0", np.ones((3 * files.VIT_H, files.VIT // files.VIT_H))),
    "other patches": lambda toy: toy.put("img_pos_emb", np.ones((5, files.VIT)), "F32"),
    "NUQ in att_ein": encoded("att_ein_0", "nuq"),
    "I8 in att_ein": encoded("att_ein_0", "i8"),
    "SFP in gating_ein": encoded("gating_ein_1", "sfp"),
}


@pytest.mark.parametrize("name", [*BREAKS, *(f"images: {name}" for name in OF_IMAGES)])
def test_check_says_of_a_file_what_the_program_makes_of_it(
    gemma_cpp: Run, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for what, size in {"D": 64, "F": 128, "Q": 32, "V": 128}.items():  # as wide as its kernels want them
        monkeypatch.setattr(files, what, size)
    if name in BREAKS:
        toy = files.toy("gemma2")
        BREAKS[name](toy)
    else:
        toy = files.toy("paligemma2", "exporter")
        OF_IMAGES[name.removeprefix("images: ")](toy)
    path = tmp_path / "x.sbs"
    path.write_bytes(toy.file())
    told = [f.message for f in check_file(path) if f.severity == "error"]
    assert (gemma_cpp(path, [2, 5, 9]) is None) == bool(told), told


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_what_is_damaged_and_passes_check_is_loaded(
    gemma_cpp: Run, first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for what, size in {"D": 32, "F": 64, "Q": 32, "V": 64}.items():
        monkeypatch.setattr(files, what, size)
    whole = files.toy("gemma2").everything()
    passed = 0
    for number in range(first, first + 50):
        r = random.Random(number)
        key = r.choice(["config", "toc", ""])
        data = files.store({**whole, key: damaged(r, whole[key]) or b"x"} if key else whole, r.choice([1, 2]))
        if not key:
            n = 32 * len(whole) + 16
            at = 0 if data[4] else len(data) - n
            data = data[:at] + damaged(r, data[at : at + n]) + data[at + n :]
        path = tmp_path / "x.sbs"
        path.write_bytes(data)
        if not any(f.severity == "error" for f in check_file(path)):
            passed += 1
            assert gemma_cpp(path, [2, 5, 9], 1) is not None, f"case {number}, {key or 'directory'}"
    assert passed
