"""Text models and their projectors in llama.cpp: what it makes of an image or a sound, and that the model takes it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import gguf_reader
import numpy as np
import pytest
from minicpmv_files import minicpmv
from reference_data import reference_dir
from small_models import read_safetensors

import streamconv
from streamconv.cli import main

pytestmark = [pytest.mark.oracle, pytest.mark.slow]

Ask = Callable[..., list[dict[str, Any]]]

_GOLDEN = (reference_dir() or Path("absent")) / "golden"
#: cases whose sizes are not such as the runtime can compute, in the reference converter's file neither: case -> why
TOO_SMALL = {
    "deepseek-ocr": "only layers 2, 5, 8 and 11 of SAM look at the whole image",
    "deepseek-ocr2": "only layers 2, 5, 8 and 11 of SAM look at the whole image",
    "unlimited-ocr": "only layers 2, 5, 8 and 11 of SAM look at the whole image",
    "audioflamingo3": "the sound has more positions than the tower",
    "glmasr": "the sound has more positions than the tower",
    "qwen2audio": "the sound has more positions than the tower",
    "gemma3n-mm": "the width of the tower has to be that of the model",
    "gemma4-moe": "the least image has more patches than the tower positions",
    "gemma4-ple": "the least image has more patches than the tower positions",
    "gemma4-unified": "sounds come in frames of 640 samples, the projection takes fewer (ggml_can_mul_mat)",
    "granite4-vision": "heads of the projector are 64 wide",
    "kimi-vl": "the text model states no attention.q_lora_rank",
    "lfm2-audio": "positions of sounds are 512 wide, the tower is narrower (ggml_can_mul_mat)",
    "llama4": "the projector's width is not that of four patches",
    "minicpmv4_6": "patches have places among 70 x 70, the tower has fewer (i01 < ne01)",
    "nemotron-nano-vl": "the tower has 32 layers whatever is stored (unable to find tensor v.blk.1.attn_out.weight)",
    "pockettts": "the convolutions end 8 wide, the layers behind them are 64 wide (ggml_can_repeat)",
    "qwen25omni": "every layer looks at the whole image, so that nothing takes the mask of windows (window_mask)",
    "qwen3tts": "spectra have 128 bands, the first convolution takes fewer (ggml_nelements)",
    "qwen3-stepvl": "the number of layers is that of the published tower, whatever config.json says",
    "step37": "the number of layers is that of the published tower, whatever config.json says",
}
#: cases that the runtime refuses whatever their sizes: case -> what it says, and why. Tensors and keys are those of the reference
#: converter's files.
REFUSED = {
    "deepseek4-vision": "logits are not finite: neither are those of the text model without an image, as its numbers are made up",
    "glm5-next": "key not found: clip.vision.image_min_pixels, as the image processor states no min_image_tokens",
    "granite-speech": "unable to find tensor a.blk.0.conv_norm.weight, which the reference calls conv_norm_var",
    "granite-speech-plus": "unable to find tensor a.blk.0.conv_norm.weight, which the reference calls conv_norm_var",
    "qwen3omni": "widths of images and sounds differ: those of images count what deeper layers add",
}
#: linear layers of a MiniCPM-V; what is only a parameter, such as in_proj_weight, stays as it is
QUANTIZED = re.compile(r"(llm\.model\.layers|vpm\.encoder|resampler)\..*(_proj|fc\d)\.weight")


def cases() -> list[Any]:
    """Every case with a text model and a projector."""
    found = []
    for path in sorted((_GOLDEN / "zoo").glob("*.json")):
        outputs = json.loads(path.read_text())["outputs"]
        if all("kv" in outputs.get(kind, {}) for kind in ("f16", "mmproj-f16")):
            why = {**TOO_SMALL, **REFUSED}.get(path.stem)
            marks = [pytest.mark.xfail(reason=why, strict=True)] if why else []
            found.append(pytest.param(path.stem, marks=marks))
    return found or [pytest.param("", marks=pytest.mark.skip("no reference data"))]


@pytest.mark.parametrize("name", cases())
def test_the_runtime_perceives_through_every_projector(
    recipes: ModuleType, reference: Path, llama: Ask, tmp_path: Path, name: str
) -> None:
    source, out = tmp_path / "hf", tmp_path / "x-{part}.gguf"
    case = recipes.materialise(reference / "golden" / "zoo" / f"{name}.json", source)
    options = [word.format(dir=source, folder=source) for word in case["outputs"]["f16"]["args"]]
    options[options.index("--outtype")] = "--type"
    if case.get("pretokenizer_override"):
        options += ["--pre", case["pretokenizer_override"]]
    assert main(["convert", str(source), str(out), "--quiet", *options]) == 0
    text, projector = tmp_path / "x-model.gguf", tmp_path / "x-mmproj.gguf"
    (answer,) = llama({"do": "perceive", "file": str(text), "mmproj": str(projector), "out": str(tmp_path / "x.npy")})
    assert answer["ok"], answer
    assert answer["finite"]
    assert answer["senses"]


def test_what_it_perceives_is_what_it_does_through_the_reference_converter_s_projector(
    reference: Path, llama: Ask, tmp_path: Path
) -> None:
    folder = reference / "golden" / "gguf" / "gemma3-mm"
    text, projector = streamconv.convert(folder / "hf", tmp_path / "x-{part}.gguf", type="F32")
    seen = []
    for each in (projector, folder / "mmproj-f16.gguf"):
        out = tmp_path / f"{len(seen)}.npy"
        assert llama({"do": "perceive", "file": str(text), "mmproj": str(each), "out": str(out)})[0]["ok"]
        seen.append(np.load(out))
    assert seen[0].std() > 0
    assert np.array_equal(*seen)


@pytest.mark.parametrize("kind", ["F32", "Q8_0"])
@pytest.mark.parametrize("tower", [False, True], ids=["towers skipped", "towers quantized"])
def test_the_runtime_sees_with_a_minicpm_v_of_four_bits(llama: Ask, tmp_path: Path, tower: bool, kind: str) -> None:
    seen = []
    for folder in minicpmv(tmp_path / "m", tower)[:2]:
        text, projector = streamconv.convert(folder, folder / "x-{part}.gguf", type=kind, pre="qwen2")
        question = {"do": "perceive", "file": str(text), "mmproj": str(projector), "out": str(folder / "x.npy")}
        (answer,) = llama(question)
        assert (answer["ok"], answer.get("finite"), answer.get("senses")) == (True, True, ["image"]), answer
        seen.append(np.load(folder / "x.npy"))
    assert seen[0].std() > 0
    assert np.array_equal(*seen)


@pytest.mark.parametrize("skipped", [("vpm.", "resampler."), ()], ids=["towers skipped", "towers quantized"])
def test_a_minicpm_v_that_bitsandbytes_quantized_has_the_values_that_it_decodes(
    reference: Path, peers: Path, tmp_path: Path, skipped: tuple[str, ...]
) -> None:
    source = reference / "golden" / "gguf" / "minicpmv26" / "hf"
    folders = [tmp_path / "nf4", tmp_path / "bf16"]
    for folder in folders:
        folder.mkdir()
        for path in source.iterdir():
            if path.name != "model.safetensors":
                shutil.copyfile(path, folder / path.name)
    names = [name for name in read_safetensors(source / "model.safetensors") if QUANTIZED.fullmatch(name)]
    kept = [name for name in names if not (skipped and name.startswith(skipped))]
    assert (len(names) > len(kept) > 0) is bool(skipped)
    words = [str(peers), str(Path(__file__).with_name("bitsandbytes_peer.py")), str(source / "model.safetensors")]
    subprocess.run([*words, *(str(folder / "model.safetensors") for folder in folders), *kept], check=True)
    values = json.loads((folders[0] / "config.json").read_text())
    values["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    (folders[0] / "config.json").write_text(json.dumps(values))
    made = []
    for folder in folders:
        paths = streamconv.convert(folder, folder / "x-{part}.gguf", type="F32", mmproj_type="F32", pre="qwen2")
        made.append([
            {name: (t.ne, t.type, t.sha256) for name, t in gguf_reader.read(path).tensors.items()} for path in paths
        ])  # fmt: skip
    assert made[0] == made[1]
