"""What ``check`` predicts of gemma.cpp's weight files."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sbs_files as files
from sbs_files import Toy

from streamconv import cli, sbs
from streamconv.check import Finding, check_file

Break = Callable[[Toy], Any]


def found(folder: Path, toy: Toy, extra: dict[str, bytes] | None = None) -> list[Finding]:
    path = folder / "x.sbs"
    path.write_bytes(files.store({**toy.everything(), **(extra or {})}))
    return check_file(path)


def errors(findings: list[Finding]) -> list[str]:
    return [finding.message for finding in findings if finding.severity == "error"]


@pytest.mark.parametrize("layout", ["split", "exporter"])
@pytest.mark.parametrize("kind", ["gemma", "gemma2", "gemma3", "paligemma", "paligemma2", "gemma3v"])
def test_files_as_they_should_be_have_no_errors(kind: str, layout: str, tmp_path: Path) -> None:
    assert errors(found(tmp_path, files.toy(kind, layout))) == []


def encoded(key: str, kind: str, shape: tuple[int, int]) -> Break:
    def change(toy: Toy) -> None:
        data, scale = sbs.encode(np.linspace(-1, 1, shape[0] * shape[1], dtype=np.float32), kind)
        toy.blobs[key], toy.toc[key] = data.tobytes(), files.entry(key, files.TYPES[kind.upper()], *shape, float(scale))
        toy.fields["weight"] = files.TYPES[kind.upper()]

    return change


def as_type(key: str, type_: str) -> Break:
    def change(toy: Toy) -> None:
        rows, cols = toy.toc[key][-4:-2]
        toy.put(key, np.ones((rows, cols)), type_)

    return change


def scaled(key: str) -> Break:
    return lambda toy: toy.toc.__setitem__(key, files.entry(key, 2, *toy.toc[key][-4:-2], 2.0))


def both(toy: Toy) -> None:
    other = files.toy("gemma2", "exporter")
    for key in ("att_ein_0", "gating_ein_1"):
        toy.blobs[key], toy.toc[key] = other.blobs[key], other.toc[key]


BREAKS: dict[str, tuple[str, Break]] = {
    # severity and words of the message -> change; ``E``: an error, ``W``: a warning
    "E linear_w_1 is missing; the loader does not notice": ("gemma2", lambda toy: toy.drop("linear_w_1")),
    "E qkv2_w_0 is missing; the loader does not notice": ("gemma2", lambda toy: toy.drop("qkv2_w_0")),
    "E gating2_w_0 is missing and gating_ein neither": ("gemma2", lambda toy: toy.drop("gating2_w_0")),
    "E att_w is missing in layer 0 and 1 others and att_ein neither": ("gemma2", lambda toy: toy.drop("att_w_0", "att_w_1")),
    "E c_final_norm is missing": ("gemma2", lambda toy: toy.drop("c_final_norm")),
    "E img_head_bias is missing": ("gemma3v", lambda toy: toy.drop("img_head_bias")),
    "E att_ein_0 and att_w_0 are both there": ("gemma2", both),
    "E gating_ein_1 and gating1_w_1 and gating2_w_1 are both there": ("gemma2", both),
    "E is BF16, the loader takes F32 only": ("paligemma", as_type("qkv_ein_b_1", "BF16")),
    "E is SFP, the runtime takes F32 and BF16": ("paligemma", encoded("img_pos_emb", "sfp", (4, files.VIT))),
    "E ln_0_bias_0 and ln_0_scale_0 are BF16 and F32": ("paligemma", as_type("ln_0_scale_0", "F32")),
    "E enc_norm_bias and enc_norm_scale are BF16 and F32": ("paligemma", as_type("enc_norm_bias", "F32")),
    "E gating1_w_0 and gating2_w_0 are BF16 and F32": ("gemma2", as_type("gating1_w_0", "F32")),
    "E 'weight' of the configuration is 3; by the table of contents it must be 2": ("gemma2", lambda t: t.fields.update(weight=3)),
    "E 'weight' of the configuration is 99": ("gemma2", lambda t: t.fields.update(weight=99)),
    "E the type of the file is 99": ("gemma2", lambda t: t.fields.update(weight=99)),
    "E the model is 8 (PaliGemma 224), which loaders no longer take": ("gemma2", lambda t: t.fields.update(model=8)),
    "E the model is 0": ("gemma2", lambda t: t.fields.update(model=0)),
    "E the wrapping of prompts is 4": ("gemma2", lambda t: t.fields.update(wrapping=4)),
    "W 'num_layers' is 3": ("gemma2", lambda t: t.fields.update(num_layers=3)),
    "E there are 1 windows for 2 layers": ("gemma2", lambda t: t.fields.update(windows=[64])),
    "E image layer 0 has the type 2 of loaders before September 2025": ("paligemma", lambda t: t.image_layers[0].update(type=2)),
    "E image layer 1 is of type 0": ("paligemma", lambda t: t.image_layers[1].update(type=0)),
    "E layer 1 is of type 1": ("gemma2", lambda t: t.layers[1].update(type=1)),
    "E layer 0: heads have a width of 2048": ("gemma2", lambda t: t.layers[0].update(qkv_dim=2048)),
    "E layer 0: 4 heads do not share 3": ("gemma2", lambda t: t.layers[0].update(kv_heads=3)),
    "E layer 0: 0 heads do not share 2": ("gemma2", lambda t: t.layers[0].update(heads=0)),
    "E layer 1: 'use_qk_norm' is 256, the loader knows 0 to 1": ("gemma2", lambda t: t.layers[1].update(use_qk_norm=256)),
    "E ffw_gat_b_0 is missing: layer 0 has biases": ("gemma2", lambda t: t.layers[0].update(ff_biases=1)),
    "E is [16, 24], by the configuration it must be [16, 40]": ("gemma2", lambda t: t.layers[1].update(ff_hidden_dim=40)),
    "E takes 768 bytes, its blob has 769": ("gemma2", lambda t: t.blobs.update(linear_w_0=t.blobs["linear_w_0"] + b"x")),
    "E no blob has its key": ("gemma2", lambda t: t.blobs.pop("linear_w_0")),
    "E has type 9, which no loader takes": ("gemma2", lambda t: t.toc.update(linear_w_0=files.entry("linear_w_0", 9, 16, 24))),
    "E ends in a number of 999 or more": ("gemma2", lambda t: t.blobs.update(prov_1999=b"x")),
    "E NaN or infinite": ("gemma2", lambda t: t.put("linear_w_0", np.full((16, 24), np.nan))),
    "E x.sbs, tokenizer": ("gemma2", lambda t: setattr(t, "tokenizer", b"no model")),
    "E att_ein_0": ("exporter", encoded("att_ein_0", "nuq", (files.H * files.D, files.Q))),
    "E qkv_ein_0": ("exporter", encoded("qkv_ein_0", "nuq", ((files.H + 2 * files.K) * files.Q, files.D))),
    "W GEMMA_ENABLE_NUQ": ("gemma2", encoded("linear_w_0", "nuq", (files.D, files.F))),
    "W has the scale 2, which the runtime ignores": ("gemma2", scaled("pre_att_ns_0")),
    "W there is no tokenizer": ("gemma2", lambda t: None),
    "W the keys are of 5 layers, the configuration describes 2": ("gemma2", lambda t: t.put("gone_4", np.ones(4))),
    "W images have 28 pixels": ("gemma3v", lambda t: None),
}  # fmt: skip


@pytest.mark.parametrize("words", BREAKS)
def test_what_breaks_a_loader_is_found(words: str, tmp_path: Path) -> None:
    kind, change = BREAKS[words]
    toy = files.toy("gemma2", "exporter") if kind == "exporter" else files.toy(kind)
    before = {f.message for f in found(tmp_path, toy)} if words.startswith("E") else set()
    change(toy)
    severity = {"E": "error", "W": "warning"}[words[0]]
    told = [f.message for f in found(tmp_path, toy) if f.severity == severity and f.message not in before]
    assert any(words[2:] in message for message in told), told


def test_matrices_of_other_than_four_rows_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "F", 26)
    assert any("26 rows" in message for message in errors(found(tmp_path, files.toy())))


def test_a_tensor_that_is_read_at_once_has_less_than_two_gib(tmp_path: Path) -> None:
    # sparse: an embedding of F32, as real models have it
    rows, cols = 256000, 2304
    toy = files.toy()
    toy.fields |= {"vocab_size": rows, "model_dim": cols}
    for type_, size, is_found in (("F32", 4, True), ("BF16", 2, False)):
        toy.toc["c_embedding"] = files.entry("c_embedding", files.TYPES[type_], rows, cols)
        blobs = {key: data for key, data in toy.everything().items() if key != "c_embedding"}
        head = files.store({**blobs, "c_embedding": b"1"}, version=1, pad_end=False)
        first = int.from_bytes(head[16 + 32 * len(blobs) + 16 :][:8], "little")
        assert head[16 + 16 * len(blobs) :].startswith(b"c_embedding")
        changed = bytearray(head)
        struct.pack_into("<QQ", changed, 16 + 32 * len(blobs) + 16, first, rows * cols * size)
        end = -(-(first + rows * cols * size) // 256) * 256
        struct.pack_into("<Q", changed, 8, end)
        path = tmp_path / "x.sbs"
        with path.open("wb") as file:
            file.write(changed)
            file.truncate(end)
        told = [f.message for f in check_file(path, scan=False) if "c_embedding" in f.where]
        assert any("at most 2147479552 at once" in message for message in told) == is_found


def test_a_damaged_file_is_one_error_and_exit_code_65(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.sbs"
    path.write_bytes(files.toy().file()[:-256])
    assert cli.main(["check", str(path)]) == 65
    assert str(path) in capsys.readouterr().out
    path.write_bytes(files.toy().file())
    assert cli.main(["check", str(path)]) == 0
    assert "no errors" in capsys.readouterr().out


@pytest.mark.parametrize("key", ["_999", "a_999x", "a_1_1000"])
def test_numbers_at_the_end_of_keys_are_read_as_the_loader_reads_them(key: str, tmp_path: Path) -> None:
    assert any("999 or more" in message for message in errors(found(tmp_path, files.toy(), {key: b"x"})))
    for harmless in ("a_998", "a999", "a_999_b", "a_x999", "a_99999999999"):
        assert not errors(found(tmp_path, files.toy(), {harmless: b"x"})), harmless


def test_factors_of_i8_that_are_not_finite_are_found(tmp_path: Path) -> None:
    toy = files.toy()
    encoded("linear_w_0", "i8", (files.D, files.F))(toy)
    data = bytearray(toy.blobs["linear_w_0"])
    data[132:134] = b"\x80\x7f"
    toy.blobs["linear_w_0"] = bytes(data)
    assert any("1 groups have factors" in message for message in errors(found(tmp_path, toy)))
