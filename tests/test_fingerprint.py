"""Whatever changes a byte of an output changes the plan's fingerprint, for one small job of every kind.

Every key of every configuration, every option and every side file is changed, one at a time. Where the fingerprint stays the
same, the outputs are made and compared.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fingerprint_cases import (
    DECIDING,
    IMPORTANT,
    JOBS,
    NEUTRAL,
    Job,
    bytes_of,
    extraction,
    linear_gguf,
    other_options,
    requantized,
    text_changes,
    write_imatrix,
)

from streamconv.conversion import Options
from streamconv.errors import StreamconvError

#: jobs that take seconds to go through
SLOW = (
    "dense_folder", "ties_gguf", "extraction", "dense_gguf", "gemma_gguf", "gemma_sbs", "linear_gguf", "dare_folder",
    "mixture_folder", "awq_gguf", "gptq_gguf", "quantized_merge_folder", "adapter_gguf", "lora_gguf",
    "quantized_merge_gguf", "projector", "nf4_folder",
)  # fmt: skip
#: jobs whose output says where its models were
NAME_THEIR_MODELS = (
    "linear_gguf", "dare_folder", "ties_gguf", "mixture_folder", "quantized_merge_gguf", "quantized_merge_folder",
    "adapter_gguf", "extraction",
)  # fmt: skip
#: what must have been told apart, by job
MUST_DIFFER = {
    "gptq_gguf": "config.json/quantization_config/checkpoint_format: 'gptq' -> 'gptq_v2'",
    "gptq_folder": "config.json/quantization_config/checkpoint_format: 'gptq' -> 'gptq_v2'",
    "gptq_side_file": "quantize_config.json/checkpoint_format: 'gptq' -> 'gptq_v2'",
    "quantized_merge_gguf": "config.json/quantization_config/checkpoint_format: 'gptq' -> 'gptq_v2'",
    "quantized_merge_folder": "config.json/quantization_config/checkpoint_format: 'gptq' -> 'gptq_v2'",
    "adapter_gguf": "config.json/quantization_config/checkpoint_format: 'gptq' -> 'gptq_v2'",
    "extraction": "config.json/quantization_config/checkpoint_format: 'gptq' -> 'gptq_v2'",
    "llama3_gguf": "config.json/rope_parameters/factor: 8.0 -> 16.0",
    "lora_gguf": "adapter_config.json/alpha_pattern/q_proj: 3 -> 4",
    "hqq.case02": "config.json/quantization_config/compute_dtype: 'bfloat16' -> 'float16'",
}
#: what decides nothing, by job
MUST_NOT = {
    "dense_gguf": ("README.md with another line", "config.json/transformers_version: '4.44.0' -> '4.44.0x'"),
    "llama3_gguf": ("config.json/use_cache: True -> False",),
    "linear_gguf": ("recipe.yml with a comment",),
    "gptq_gguf": ("config.json/quantization_config/sym: False -> True", "config.json in another layout"),
}


def changed_texts(job: Job) -> Iterator[str]:
    """Each change of the job's files, while it is in place."""
    for path in job.texts:
        before = path.read_bytes()
        try:
            for what, after in text_changes(path):
                path.write_bytes(after)
                yield what
        finally:
            path.write_bytes(before)


def print_of(job: Job, options: Options) -> bytes | None:
    """The fingerprint, None where the plan is refused."""
    try:
        return job.plan(options).plan.fingerprint
    except StreamconvError:
        return None


def made(job: Job, options: Options) -> list[bytes] | None:
    """The bytes of the output, None where they cannot be made."""
    try:
        return bytes_of(job.plan(options))
    except StreamconvError:
        return None


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in JOBS])
def test_a_changed_file_that_changes_bytes_changes_the_fingerprint(name: str, tmp_path: Path) -> None:
    job = JOBS[name](tmp_path)
    first, expected = print_of(job, job.options), made(job, job.options)
    assert first is not None
    assert expected is not None
    differ, same = set(), set()
    for what in changed_texts(job):
        found = print_of(job, job.options)
        if found == first:
            same.add(what)
            assert made(job, job.options) in (None, expected), f"{what}: other bytes, the same fingerprint"
        elif found is not None:
            differ.add(what)
    assert print_of(job, job.options) == first
    if name in MUST_DIFFER:
        assert MUST_DIFFER[name] in differ
    assert set(MUST_NOT.get(name, ())) <= same


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name", ["dense_gguf", "requantized", *(pytest.param(n, marks=pytest.mark.slow) for n in (*SLOW[:3], "projector"))]
)
def test_an_option_that_changes_bytes_changes_the_fingerprint(name: str, tmp_path: Path) -> None:
    job = JOBS[name](tmp_path)
    first, expected = print_of(job, job.options), made(job, job.options)
    differ = set()
    for what, options in other_options(job.options):
        found = print_of(job, options)
        if found == first:
            assert made(job, options) in (None, expected), f"{what}: other bytes, the same fingerprint"
        elif found is not None:
            differ.add(what)
    assert differ
    for option, value in NEUTRAL.items():
        assert print_of(job, dataclasses.replace(job.options, **{option: value})) == first, option


def test_every_option_is_known_to_decide_bytes_or_not() -> None:
    assert {field.name for field in dataclasses.fields(Options)} == {*NEUTRAL, *DECIDING}


def test_other_importance_is_another_job(tmp_path: Path) -> None:
    job = requantized(tmp_path)
    first = print_of(job, job.options)
    weights = {n: np.random.default_rng(i).random(64, np.float32) for i, n in enumerate(IMPORTANT)}
    weights[IMPORTANT[1]][17] *= 2
    write_imatrix(tmp_path / "i.dat", weights)
    assert print_of(job, job.options) != first


def test_models_that_change_places_are_another_job(tmp_path: Path) -> None:
    job = linear_gguf(tmp_path)
    first = print_of(job, job.options)
    (tmp_path / "a").rename(tmp_path / "c")
    (tmp_path / "b").rename(tmp_path / "a")
    (tmp_path / "c").rename(tmp_path / "b")
    assert print_of(job, job.options) != first


@pytest.mark.parametrize("name", [name for name in JOBS if name not in NAME_THEIR_MODELS])
def test_the_fingerprint_does_not_depend_on_where_things_are(name: str, tmp_path: Path) -> None:
    prints = []
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        job = JOBS[name](tmp_path / place)
        prints.append(print_of(job, job.options))
    assert prints[0] == prints[1] is not None


def test_a_key_of_the_base_that_decides_factors_is_told_apart(tmp_path: Path) -> None:
    job = extraction(tmp_path)
    first = print_of(job, job.options)
    found = {what: print_of(job, job.options) for what in changed_texts(job) if "checkpoint_format" in what}
    assert found[MUST_DIFFER["extraction"]] not in (None, first)
