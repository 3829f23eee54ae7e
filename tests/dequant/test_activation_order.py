"""Codes in the order of the activations are decoded with the index of their groups, or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from quantized_files import Tensors, write_safetensors

from streamconv import dequant
from streamconv.errors import BadInput
from streamconv.sources import open_checkpoint

ONES = np.full((8, 64), 0x11111111, "<i4")
GPTQ: Tensors = {
    "w.qweight": ("I32", ONES), "w.qzeros": ("I32", np.zeros((2, 8), "<i4")), "w.scales": ("F16", np.ones((2, 64), np.float16)),
}  # fmt: skip
PACKED: Tensors = {
    "w.weight_packed": ("I32", ONES), "w.weight_scale": ("F16", np.ones((8, 2), np.float16)),
    "w.weight_shape": ("I64", np.array([8, 512])),
}  # fmt: skip
PLAIN: Tensors = {"w.weight": ("I8", np.ones((8, 64), np.int8)), "w.weight_scale": ("F16", np.ones((8, 2), np.float16))}


def compressed(order: object, **more: Any) -> dict[str, Any]:
    arguments = {"num_bits": 4, "type": "int", "strategy": "group", "actorder": order, **more}
    return {"quant_method": "compressed-tensors", "config_groups": {"g": {"targets": ["Linear"], "weights": arguments}}}


def gptq(**stated: Any) -> dict[str, Any]:
    return {"quant_method": "gptq", "bits": 4, "group_size": 32, **stated}


def decoded(at: Path, tensors: Tensors, section: Any) -> Any:
    (at / "hf").mkdir()
    write_safetensors(at / "hf" / "model.safetensors", tensors)
    (at / "hf" / "config.json").write_text(json.dumps({"architectures": ["X"], "quantization_config": section}))
    return dequant.decoded(open_checkpoint(at / "hf")).tensors["w.weight"]


@pytest.mark.parametrize(("tensors", "section", "index"), [
    (GPTQ, gptq(desc_act=True), "w.g_idx"), (GPTQ, gptq(desc_act=False, dynamic={"w": {"desc_act": True}}), "w.g_idx"),
    (PACKED, compressed("group"), "w.weight_g_idx"), (PACKED, compressed("dynamic"), "w.weight_g_idx"),
    (PACKED, compressed(True), "w.weight_g_idx"), (PLAIN, compressed("group", num_bits=8), "w.weight_g_idx"),
])  # fmt: skip
def test_without_the_index_it_is_refused(tmp_path: Path, tensors: Tensors, section: Any, index: str) -> None:
    with pytest.raises(BadInput, match=rf"'{index}'.* missing"):
        decoded(tmp_path, tensors, section)


@pytest.mark.parametrize(("tensors", "section"), [
    (GPTQ, gptq(desc_act=False)), (GPTQ, gptq(desc_act=True, static_groups=True)), (GPTQ, gptq()),
    ({**GPTQ, "w.g_idx": ("I32", np.arange(64, dtype="<i4") % 2)}, gptq(desc_act=True)),
    ({name: (kind, words[:1] if name != "w.qweight" else words) for name, (kind, words) in GPTQ.items()},
     gptq(desc_act=True, group_size=-1)),
    (PACKED, compressed("static")), (PACKED, compressed("weight")), (PACKED, compressed(None)), (PACKED, compressed(False)),
    ({**PACKED, "w.weight_g_idx": ("I32", np.arange(512, dtype="<i4") % 2)}, compressed("group")),
    (PLAIN, compressed("static", num_bits=8)),
])  # fmt: skip
def test_groups_that_lie_side_by_side_need_none(tmp_path: Path, tensors: Tensors, section: Any) -> None:
    rows = decoded(tmp_path, tensors, section)
    assert np.unique(rows.read(0, rows.n_rows)).size == 1
