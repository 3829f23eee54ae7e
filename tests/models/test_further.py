"""Blocks that predict further tokens: with the others, alone, or left out; never counted where the checkpoint lacks them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys

from streamconv.check import judge
from streamconv.conversion.judging import judged_model
from streamconv.errors import BadInput, UsageError
from streamconv.models import FAMILIES
from streamconv.sources.checkpoint import Checkpoint

TOYS = toys.stored()
#: toys with such blocks -> how many blocks they have before these
NAMES = {
    "glm4-moe": 2,
    "glm4-moe-lite": 2,
    "qwen35": 4,
    "qwen35moe": 4,
    "step35": 4,
    "hy-v3": 2,
    "deepseek32": 3,
    "glm-dsa": 2,
    "glm5-next": 2,
}
#: what these blocks share with others
SHARED = {"token_embd.weight", "output.weight", "output_norm.weight", "rope_freqs.weight"}


def count(model: Any, name: str) -> int:
    found: int = toys.keys(model).get(f"{model.arch}.{name}", 0)
    return found


def without_further(first: int) -> Any:
    """A change that takes the tensors of such blocks away."""

    def drop(tensors: dict[str, list[int]]) -> None:
        for name in [n for n in tensors if n.startswith("mtp.") or f".layers.{first}." in n]:
            del tensors[name]

    return drop


@pytest.mark.parametrize(("name", "first"), NAMES.items())
def test_they_are_written_with_the_others_alone_or_not_at_all(name: str, first: int) -> None:
    whole, alone, none = (toys.built(TOYS[name], further=what) for what in ("kept", "only", "left out"))  # type: ignore[arg-type]
    prefix = f"blk.{first}."
    further = {n for n in whole.tensors if n.startswith(prefix)}
    assert further
    assert set(alone.tensors) - SHARED == further
    assert {"token_embd.weight", "output_norm.weight"} <= set(alone.tensors)
    assert set(none.tensors) == set(whole.tensors) - further
    assert [count(m, "block_count") for m in (whole, alone, none)] == [first + 1, first + 1, first]
    assert [count(m, "nextn_predict_layers") for m in (whole, alone, none)] == [1, 1, 0]
    assert f"{none.arch}.nextn_predict_layers" not in toys.keys(none)
    assert any(why.startswith("--no-mtp") for why in none.left_out.values())
    assert any(why.startswith("--mtp") for why in alone.left_out.values())


@pytest.mark.parametrize("name", sorted(NAMES.keys() - {"glm5-next"}))  # whose loader asks for all layers
def test_a_loader_takes_them_alone(name: str) -> None:
    model = toys.built(TOYS[name], further="only")
    assert [f.message for f in judge(model.metadata, model.tensors) if f.kind == "missing" and "blk." in f.where] == []


@pytest.mark.parametrize(("name", "first"), [*NAMES.items(), ("glm-ocr", 2)])
def test_those_that_the_checkpoint_lacks_are_not_counted(name: str, first: int) -> None:
    model = toys.built(TOYS[name], tensors=without_further(first))
    assert count(model, "block_count") == first
    assert count(model, "nextn_predict_layers") == 0
    (told,) = (warning for warning in model.warnings if "num_nextn_predict_layers" in warning or "mtp_num" in warning)
    assert "is 1, but" in told


def with_further_of_ling(tensors: dict[str, list[int]]) -> None:
    """The last of four layers once more behind them, with what such a block has besides."""
    for name in [n for n in tensors if ".layers.3." in n]:
        tensors[name.replace(".layers.3.", ".layers.4.")] = tensors[name]
    norms = {name: [64] for name in ("enorm", "hnorm", "final_layernorm")}
    tensors.update({f"model.layers.4.{name}.weight": shape for name, shape in {**norms, "eh_proj": [64, 128]}.items()})


def test_the_further_block_of_ling_is_written_with_the_others_alone_or_not_at_all() -> None:
    def built(further: Any) -> Any:
        def counted(c: dict[str, Any]) -> None:
            c.get("text_config", c)["num_nextn_predict_layers"] = 1

        return toys.built(TOYS["bailingmoe3-vl"], counted, with_further_of_ling, further=further)

    whole, alone, none = map(built, ("kept", "only", "left out"))
    blocks = [
        {name.partition(".")[2].partition(".")[0] for name in m.tensors if "blk" in name} for m in (whole, alone, none)
    ]
    assert blocks == [{*"01234"}, {"4"}, {*"0123"}]
    assert [count(m, "block_count") for m in (whole, alone, none)] == [5, 5, 4]
    assert [count(m, "nextn_predict_layers") for m in (whole, alone, none)] == [1, 1, 0]
    assert [len(toys.keys(m)["bailingmoe3.attention.head_count_kv"]) for m in (whole, alone, none)] == [5, 5, 4]


def of_deepseek4(tensors: dict[str, list[int]]) -> None:
    """A whole block that predicts a further token: the last of four layers once more, and what such a block has besides."""
    for name in [n for n in tensors if n.startswith("layers.3.")]:
        tensors[name.replace("layers.3.", "mtp.0.")] = tensors[name]
    tensors.update({f"mtp.0.{n}": tensors[n] for n in ("hc_head_fn", "hc_head_base", "hc_head_scale")})
    tensors["mtp.0.hnorm.weight"] = tensors["mtp.0.enorm.weight"]


def test_the_further_block_of_deepseek_4_is_written_alone_only() -> None:
    kinds: tuple[Any, ...] = ("kept", "only", "left out")
    whole, alone, none = (toys.built(TOYS["deepseek4"], tensors=of_deepseek4, further=what) for what in kinds)
    assert whole.tensors.keys() == none.tensors.keys()
    assert not any(name.startswith("blk.4.") for name in whole.tensors)
    assert [count(m, "block_count") for m in (whole, alone, none)] == [4, 5, 4]
    assert [count(m, "nextn_predict_layers") for m in (whole, alone, none)] == [0, 1, 0]
    assert len(toys.keys(alone)["deepseek4.swiglu_clamp_exp"]) == 5
    other = {n for n in alone.tensors if not n.startswith("blk.4.")} - SHARED
    assert other == {f"output_hc_{part}.weight" for part in ("fn", "base", "scale")}
    assert {"blk.4.nextn.enorm.weight", "blk.4.nextn.hnorm.weight", "blk.4.nextn.shared_head_norm.weight"} <= set(
        alone.tensors
    )
    made = alone.tensors["blk.4.nextn.eh_proj.weight"].read(0, 64)
    parts = [toys.Named(f"mtp.0.{part}_proj.weight", (64, 64)).read(0, 64) for part in "eh"]
    assert np.array_equal(made, np.concatenate(parts, axis=1))
    assert alone.forced_types["blk.4.nextn.eh_proj.weight"] == "Q8_0"


def test_what_an_option_leaves_out_is_not_forgotten(tmp_path: Path) -> None:
    model = toys.built(TOYS["dots3note"], further="only")
    rows = {name: toys.Named(name, tuple(shape)) for name, shape in toys.unpacked(TOYS["dots3note"]["tensors"])}
    checkpoint = Checkpoint(tmp_path, rows, TOYS["dots3note"]["config"], ())
    told = judged_model(checkpoint, FAMILIES["Dots3NoteForCausalLM"], model)
    assert any("no runtime will load the output" in text and "blk.0." in text for text in told)
    model = replace(model, left_out={})
    with pytest.raises(BadInput, match=r"which tensor .* of the checkpoint has"):
        judged_model(checkpoint, FAMILIES["Dots3NoteForCausalLM"], model)


def test_none_alone_is_refused_and_none_left_out_is_told() -> None:
    with pytest.raises(BadInput, match="toy has no blocks that predict further tokens"):
        toys.built(TOYS["glm4-moe"], tensors=without_further(2), further="only")
    model = toys.built(TOYS["glm4-moe"], tensors=without_further(2), further="left out")
    assert "--no-mtp has no effect: toy has no blocks that predict further tokens" in model.warnings


def test_blocks_that_are_not_counted_can_be_left_out() -> None:
    with pytest.raises(BadInput, match="lies beyond the 2 layers"):
        toys.built(TOYS["glm4-moe"], lambda c: c.update(num_nextn_predict_layers=0))
    model = toys.built(TOYS["glm4-moe"], lambda c: c.update(num_nextn_predict_layers=0), further="left out")
    assert count(model, "block_count") == 2


@pytest.mark.parametrize("name", ["deepseek3", "solar-open", "nemotron-h-puzzle", "gemma4-assistant", "granite"])
@pytest.mark.parametrize(("further", "option"), [("only", "--mtp"), ("left out", "--no-mtp")])
def test_an_architecture_without_such_blocks_refuses_the_options(name: str, further: Any, option: str) -> None:
    with pytest.raises(UsageError, match=f"^{option} has no effect on"):
        toys.built(TOYS[name], further=further)
