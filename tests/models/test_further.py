"""Blocks that predict further tokens: with the others, alone, or left out; never counted where the checkpoint lacks them."""

from __future__ import annotations

from typing import Any

import pytest
import toys

from streamconv.check import judge
from streamconv.errors import BadInput, UsageError

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


@pytest.mark.parametrize("name", NAMES)
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
