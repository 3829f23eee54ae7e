"""The page of a mix: what was chosen and measured, in the words and numbers of the result."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from page_reader import facts, read_page, rows, value

from streamconv import report
from streamconv.forward.divergence import Estimate
from streamconv.sizing import Mix, MixSide, MixTensor
from streamconv.sizing.page import facts_of


def mix() -> Mix:
    tensors = [
        MixTensor(
            f"blk.{n}.{kind}.weight", (256, 256), 53_760, "Q6_K", standard, "reason", 0.0004, 0.01, 3.0 - n, 0.0012
        )
        for n in range(3)
        for kind, standard in (("attn_q", "Q4_K"), ("ffn_up", "Q6_K"))
    ]
    own = MixSide("measured", 900_000, 0.02, Estimate(0.021, 0.001))
    standard = MixSide("Q4_K_S", 890_000, 0.033, Estimate(0.03, 0.002))
    difference = Estimate(-0.009, 0.0004)
    return Mix(
        "models/source", 910_000, 900_000, 4.41, "Q4_K_M", tensors, own, standard, difference, False, "Q3_K", 2048, 4096
    )


def test_the_page_has_the_numbers_of_the_mix() -> None:
    body = read_page(report.mixed_page(facts_of(mix(), "prose.txt", [Path("i.gguf")])))
    assert facts(body)["Used"].startswith("mix")
    sides = rows(body, "The mix and standard mixes")
    assert [row[""] for row in sides] == ["mix", "Q4_K_S"]
    assert [row["Bytes"] for row in sides] == ["900,000", "890,000"]
    assert [value(row["KL divergence, nats"]) for row in sides] == [0.021, 0.03]
    assert [value(row["Predicted"]) for row in sides] == [0.02, 0.033]
    listed = rows(body, "Every tensor")
    assert [row["Tensor"] for row in listed] == [t.name for t in mix().tensors]
    first = listed[0]
    assert (first["Type"], first["Q4_K_S"], first["Error"], first["Sensitivity"]) == ("Q6_K", "Q4_K", "2.00 %", "3")
    assert value(first["Cost, nats"]) == 0.0012
    for words in ("Better than Q4_K_S", "prose.txt", "i.gguf", "2,048 tokens", "4,096 other tokens", "3 of 6 tensors"):
        assert words in body.text


def test_a_standard_mix_that_was_kept_is_said_to_be() -> None:
    kept = replace(mix(), standard_kept=True, difference=Estimate(0.001, 0.002))
    body = read_page(report.mixed_page(facts_of(kept, "prose.txt", [])))
    assert "Standard mix kept: Q4_K_S" in body.text
    assert facts(body)["Used"] == "Q4_K_Sstandard mix kept"


def test_a_mix_that_was_not_compared_shows_what_was_predicted() -> None:
    sides = [replace(side, measured_kl=None) for side in (mix().own, mix().standard) if side is not None]
    alone = replace(mix(), own=sides[0], standard=sides[1], difference=None)
    body = read_page(report.mixed_page(facts_of(alone, "prose.txt", [])))
    assert [row["KL divergence, nats"] for row in rows(body, "The mix and standard mixes")] == ["–", "–"]
    assert "prose.txt" not in body.text
    read_page(report.mixed_page(facts_of(replace(alone, standard=None), "prose.txt", [])))
