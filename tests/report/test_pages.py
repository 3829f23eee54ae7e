"""Pages from plain data: well formed, alone, complete, and true to their numbers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from page_reader import Element, facts, read_page, rows, value

from streamconv import report
from streamconv.forward.divergence import Divergence, summary
from streamconv.report import scales

BITS = {"Q4_K": 4.5, "Q6_K": 6.5625, "F32": 32.0, "BF16": 16.0}
HOSTILE = [
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=y>",
    "a&amp;b]]>",
    "\x00\x1b[2J\n",
    "‮gpj.exe",
    "\udcff",
    "blk.0.ü",
]


def tensor(name: str, shape: tuple[int, ...], type_: str, error: float | None = 0.07, **more: Any) -> report.Tensor:
    return report.Tensor(name, shape, "BF16", type_, int(math.prod(shape) * BITS[type_] / 8), "why", error, **more)


def output(n_layers: int = 4, **more: Any) -> report.Output:
    found = [tensor("token_embd.weight", (512, 256), "Q6_K", 0.018)]
    for n in range(n_layers):
        found += [tensor(f"blk.{n}.attn_norm.weight", (256,), "F32", 0.0)]
        found += [
            tensor(f"blk.{n}.{kind}.weight", (256, 256), "Q4_K", 0.07 + 0.001 * n, **more)
            for kind in ("attn_q", "ffn_up")
        ]
    return report.Output("out/model.gguf", "Q4_K_M", "llama", found)


def converted(*outputs: report.Output, **more: Any) -> report.Converted:
    return report.Converted("models/source", outputs or (output(),), 1 << 20, 1 << 19, 3.25, version="1.2.3", **more)


def compared(name: str = "q4.gguf", n_chunks: int = 6, scale: float = 1.0, n_scored: int = 40) -> report.Compared:
    rng = np.random.default_rng(len(name))
    base = -rng.gamma(2.0, 2.0, n_chunks * n_scored)
    kld = scale * np.exp(rng.normal(-5, 1.5, n_chunks * n_scored))
    found = Divergence(base, np.minimum(base + scale * rng.normal(0, 0.1, len(base)), 0), kld, kld < 0.05)
    running = list(np.exp(rng.random(n_chunks) + 2))
    return report.Compared(name, summary(found), kld.reshape(n_chunks, n_scored), running, running)


def mixed(n_layers: int = 3, **more: Any) -> report.Mixed:
    tensors = [
        report.MixedTensor(
            f"blk.{n}.{kind}.weight", (256, 256), "Q6_K" if n else "Q4_K", 53_760, "Q4_K", 0.018, 2.0**-n, 1e-5 * 2.0**-n, "why"
        )
        for n in range(n_layers)
        for kind in ("attn_q", "ffn_up")
    ]  # fmt: skip
    mix = report.Candidate("mix", 900_000, 0.021, 0.001, 0.02)
    standards = [report.Candidate("Q4_K_S", 890_000, 0.03, 0.001), report.Candidate("Q4_K_M", 990_000, 0.022, 0.002)]
    made = report.Mixed(
        "models/source", 910_000, 4.41, mix, standards, True, "The mix is better.", tensors, (-0.009, 0.0004)
    )
    return replace(made, **{"text": "prose.txt", **more})


PAGES = {
    "a conversion": lambda: report.converted_page(converted()),
    "one that was complete": lambda: report.converted_page(replace(converted(), seconds=None)),
    "one without an error": lambda: report.converted_page(converted(output(2), report.Output("b", "BF16", "llama", [
        tensor("blk.0.a", (2, 2), "BF16", 0.0), tensor("blk.1.a", (2, 2), "BF16", 0.0)]))),
    "one that was not measured": lambda: report.converted_page(
        converted(report.Output("b", "F32", "", [tensor("x", (), "F32", None)]))),
    "one with an imatrix": lambda: report.converted_page(
        converted(output(90, weighted=0.05), importance=["i.dat"], notes=["a note"])),
    "one that took long": lambda: report.converted_page(replace(
        converted(), seconds=9000.0, peak_bytes=1 << 30, resumed_bytes=5, progress=[(90.0 * k, 5242 * k) for k in range(101)])),
    "empty tensors": lambda: report.converted_page(
        converted(report.Output("b", "F32", "", [tensor("x.0.y", (0, 4), "F32", None)]))),
    "a comparison": lambda: report.compared_page("ref", [compared()], text="t", n_ctx=80),
    "several models": lambda: report.compared_page(
        "ref", [compared("a/m.gguf"), compared("b/m.gguf", scale=1e-9), compared("same", scale=0.0)], text="t", n_ctx=80),
    "one chunk of few tokens": lambda: report.compared_page("ref", [compared(n_chunks=1, n_scored=3)], text="t", n_ctx=8),
    "a model and itself": lambda: report.compared_page("ref", [compared(scale=0.0)], text="t", n_ctx=80),
    "a broken model": lambda: report.compared_page("ref", [compared(scale=1e6)], text="t", n_ctx=80),
    "a mix": lambda: report.mixed_page(mixed()),
    "a mix that was not measured": lambda: report.mixed_page(mixed(
        mix=report.Candidate("mix", 9), standards=[], is_kept=False, tensors=[], difference=None)),
}  # fmt: skip


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_well_formed_stands_alone_and_is_the_same_each_time(name: str) -> None:
    text = PAGES[name]()
    read_page(text)
    assert text == PAGES[name]()
    assert report.is_page(text.encode())


def test_every_tensor_is_in_the_table_with_its_numbers() -> None:
    made = output(3, weighted=0.0512345)
    body = read_page(report.converted_page(converted(made)))
    found = rows(body, "Every tensor, in the order of the file")
    assert [row["Tensor"] for row in found] == [t.name for t in made.tensors]
    row = found[2]
    assert row == {
        "Tensor": "blk.0.attn_q.weight", "Shape": "256 × 256", "Stored as": "BF16", "Written as": "Q4_K", "Bits": "4.5",
        "Bytes": "36,864", "Error": "7.00 %", "Weighted error": "5.12 %", "Reason": "why",
    }  # fmt: skip
    assert found[0]["Weighted error"] == "–"


def test_sizes_add_up_by_type() -> None:
    found = rows(read_page(report.converted_page(converted())), "Size of all tensors of a type")
    assert [(row["Type"], row["Tensors"], row["Bits per weight"]) for row in found] == [
        ("Q4_K", "8", "4.50"), ("Q6_K", "1", "6.56"), ("F32", "4", "32.00"),
    ]  # fmt: skip
    assert sum(float(row["Share"].removesuffix(" %")) for row in found) == pytest.approx(100, abs=1)


def test_outputs_are_told_apart_from_those_that_nobody_measured() -> None:
    made = [
        output(2), report.Output("copied", "BF16", "", [tensor("a", (2, 2), "BF16", 0.0)]),
        report.Output("unknown", "BF16", "", [tensor("a", (2, 2), "BF16", None)]),
    ]  # fmt: skip
    found = rows(read_page(report.converted_page(converted(*made))), "Size and error of every output")
    assert [(row["Median error"], row["Largest error"]) for row in found] == [
        ("7.0 %", "7.1 %"),
        ("0 %", "0 %"),
        ("–", "–"),
    ]


def test_every_matrix_of_a_layer_has_a_cell_and_a_dot_that_tell_its_type_and_error() -> None:
    body = read_page(report.converted_page(converted()))
    titles = [e.text for e in body.all("title")]
    for n in range(4):
        assert f"layer {n}, attn_q: Q4_K, 4.5 bits per weight" in titles
        assert titles.count(f"layer {n}: 7.{n} %" if n else "layer 0: 7 %") == 2  # of both kinds


def test_experts_of_a_layer_share_a_cell_and_dots_are_their_mean() -> None:
    names = [f"model.layers.{n}.mlp.experts.{x}.up_proj.weight" for n in range(2) for x in range(3)]
    errors = [0.01, 0.02, 0.06, 0.0, 0.0, 0.09]
    made = report.Output("b", "Q4_K", "", [tensor(n, (8, 8), "Q4_K", e) for n, e in zip(names, errors, strict=True)])
    titles = [e.text for e in read_page(report.converted_page(converted(made))).all("title")]
    assert any(t.startswith("layer 1, ") and t.endswith("Q4_K, 4.5 bits per weight, 3 tensors") for t in titles)
    assert "layer 0: 3 %" in titles
    assert "layer 1: 3 %" in titles


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_shown_and_not_obeyed(name: str) -> None:
    hostile = replace(
        converted(report.Output(name, name, name, [tensor(f"{name}.{n}.x", (4, 4), "Q4_K", 0.1, weighted=0.1) for n in range(2)])),
        source=name, importance=[name], notes=[name],
    )  # fmt: skip
    model = replace(compared(), model=name)
    mix = mixed(verdict=name, text=name, source=name, mix=report.Candidate(name, 9, 0.1))
    pages = [
        report.converted_page(hostile),
        report.converted_page(replace(hostile, outputs=[*hostile.outputs, output()])),
        report.compared_page(name, [model], text=name, n_ctx=8),
        report.compared_page(name, [model, compared()], text=name, n_ctx=8),
        report.mixed_page(mix),
    ]
    for text in pages:
        body = read_page(text)
        shown = name.encode("unicode_escape").decode() if not name.isprintable() else name
        assert shown in body.text
        assert not any(c in text for c in "\x00\x1b‮\udcff")


def test_the_numbers_of_a_comparison_are_those_of_the_statistics() -> None:
    model = compared()
    body = read_page(report.compared_page("models/ref", [model], text="text", n_ctx=80))
    divergence, token = model.statistics["kl_divergence"], model.statistics["token_probability"]
    assert facts(body)["Same first choice"].startswith(f"{token['same_top_p']:.3g}")
    found = {row[""]: value(row["KL divergence"]) for row in rows(body, "Percentiles of the KL divergence, in nats")}
    named = {"Mean": "mean", "Median": "median", "99 %": "p99", "99.9 %": "p99_9", "Maximum": "maximum"}
    assert {k: found[k] for k in named} == {k: pytest.approx(divergence[v], rel=0.02) for k, v in named.items()}


def test_the_bars_of_the_histogram_hold_every_position() -> None:
    model = compared(scale=3.0)
    body = read_page(report.compared_page("ref", [model], text="t", n_ctx=80))
    counts = [int(t.text.split(": ")[1].split()[0]) for t in body.all("title") if t.text.endswith("positions")]
    assert sum(counts) == model.divergence.size


def test_a_model_that_predicts_the_same_is_said_to_and_has_no_histogram() -> None:
    body = read_page(PAGES["a model and itself"]())
    assert "the divergence is 0 everywhere" in body.text
    assert not [t for t in body.all("title") if t.text.endswith("positions")]


def test_models_of_one_name_are_told_apart_by_their_folders() -> None:
    body = read_page(PAGES["several models"]())
    assert [row["Model"] for row in rows(body, "All models on the same text")] == ["a/m.gguf", "b/m.gguf", "same"]


def test_a_mix_is_shown_against_the_standard_and_says_which_is_used() -> None:
    body = read_page(report.mixed_page(mixed()))
    assert facts(body)["Used"] == "mixchosen from measured errors"
    assert facts(body)["Mix against Q4_K_S"] == "70.0 %of its KL divergence; difference −0.00900 ± 0.00040 nats"
    found = rows(body, "The mix and standard mixes")
    assert [row[""] for row in found] == ["mix", "Q4_K_S", "Q4_K_M"]
    assert found[0]["KL divergence, nats"] == "0.0210 ± 0.0010"
    kept = read_page(report.mixed_page(mixed(is_kept=False, verdict="Standard mix kept.")))
    assert facts(kept)["Used"] == "Q4_K_Sstandard mix kept"
    assert facts(kept)["KL divergence"].startswith("0.03")
    listed = rows(kept, "Every tensor")
    assert [row["Tensor"] for row in listed] == [t.name for t in mixed().tensors]
    assert (listed[0]["Type"], listed[0]["Q4_K_S"], listed[0]["Error"]) == ("Q4_K", "Q4_K", "1.80 %")
    assert "4 of 6 tensors have another type than in Q4_K_S." in kept.text


def _shares(body: Element, name: str) -> list[float]:
    return [
        float(e.attributes[name].removesuffix("%"))
        for e in body.all("circle")
        if name in e.attributes and "%" in e.attributes[name]
    ]


@pytest.mark.parametrize("name", PAGES)
def test_marks_lie_within_their_axes(name: str) -> None:
    body = read_page(PAGES[name]())
    assert all(0 <= v <= 100 for axis in ("cx", "cy") for v in _shares(body, axis))


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0, 0.07), (3, 3.5), (0, 0), (5, 5), (-2, 7), (1e-9, 3e-9), (1, 1e9)]
)
def test_a_linear_axis_has_a_few_round_ticks_around_its_values(low: float, high: float) -> None:
    scale = scales.linear(low, high)
    assert scale.low <= low
    assert scale.high >= high
    assert 2 <= len(scale.ticks) <= 8
    steps = {round(b - a, 12) for a, b in zip(scale.ticks, scale.ticks[1:], strict=False)}
    assert all(f"{step:e}"[0] in "125" for step in steps)


@pytest.mark.parametrize(
    ("low", "high"), [(1e-12, 1e3), (0.2, 0.3), (1, 1), (0.001, 0.001), (4e-5, 0.9), (2, 5), (0.1, 10)]
)
def test_a_logarithmic_axis_has_a_few_round_ticks_around_its_values(low: float, high: float) -> None:
    scale = scales.logarithmic(low, high)
    assert scale.low <= low * (1 + 1e-9)
    assert scale.high >= high * (1 - 1e-9)
    assert scale.low < scale.high
    assert 2 <= len(scale.ticks) <= 8
    assert all(f"{tick:e}"[0] in "125" for tick in scale.ticks)
