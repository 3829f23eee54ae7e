"""A quantized checkpoint written as a plain folder, in real transformers."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from quantized_files import llama, write_safetensors

import streamconv

pytestmark = [pytest.mark.oracle, pytest.mark.slow]


def ask(peers: Path, folder: Path, values: Path) -> dict[str, Any]:
    script = Path(__file__).with_name("transformers_peer.py")
    done = subprocess.run(
        [str(peers), str(script), str(folder), str(values)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


FITS = {"missing": [], "unexpected": [], "mismatched": [], "same": True, "finite": True}


@pytest.mark.parametrize("type_name", ["BF16", "F32", "auto"])
def test_a_dequantized_folder_loads_and_computes_what_the_decoded_model_does(
    peers: Path, tmp_path: Path, type_name: str
) -> None:
    folder, values = llama(tmp_path / "hf")
    streamconv.convert(folder, tmp_path / "out", type=type_name)
    decoded = {name: ("F32", np.asarray(x, np.float32)) for name, x in values.items()}
    assert ask(peers, tmp_path / "out", write_safetensors(tmp_path / "values.safetensors", decoded)) == FITS


@pytest.mark.parametrize("name", ["ckpt_llama_nf4_dq_bf16", "ckpt_llama_int8"])
def test_folders_that_transformers_quantized_load_as_plain_ones(
    peers: Path, reference: Path, tmp_path: Path, name: str
) -> None:
    root = reference / "golden" / "sources"
    streamconv.convert(root / name, tmp_path / "out", type="F32")
    assert ask(peers, tmp_path / "out", root / f"{name}.expected.safetensors") == FITS
