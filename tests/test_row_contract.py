"""Every kind of rows keeps the contract of ``streamconv/rows.py``; a new kind is a new line here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sbs_files
from row_contract import check_identity, check_measured, check_rows, check_spans, same, values_of
from small_models import write_safetensors

import streamconv
from streamconv import dequant, merging, sbs, sources
from streamconv.conversion.sbs.toc_rows import TocRows
from streamconv.kit import (
    Averaged,
    Constant,
    FoldedNorm,
    Function,
    Mapped,
    Narrowed,
    Product,
    Projected,
    Resampled,
    Reshaped,
    Stacked,
    Sum,
    Ternary,
    Transposed,
    UnitColumns,
    WithLargest,
    Zeros,
    cut,
    every,
    interleaved,
    join,
    split,
    take,
)
from streamconv.merging.extraction.factors import LeftColumns, LeftRows, RightRows, Settings
from streamconv.merging.lora_rows import AddedVector, DoraColumns, DoraRows, Kept, LoraRows, LowRank, ReplacedRows
from streamconv.merging.merged import SameRows
from streamconv.merging.mixture.gates import GateRows, PromptGate
from streamconv.merging.vocabulary.rows import MEAN, SOME, ZERO, Table, laid_out
from streamconv.models.families._draft import TokenIds
from streamconv.models.gemma_cpp.hugging_face import as_hugging_face
from streamconv.models.gemma_cpp.toc import TocEntry
from streamconv.models.projectors.minicpmv import Positions
from streamconv.rows import Rows, Span, digest_of, matrix_shape
from streamconv.sizing.requantized import Requantized
from streamconv.sources.mapped import MappedFile

DATA = Path(__file__).resolve().parent / "data"
PLAIN = DATA / "checkpoints" / "mistral-spm" / "hf"
QUERY, NORM = "model.layers.0.self_attn.q_proj.weight", "model.norm.weight"
KEY = "model.layers.0.self_attn.k_proj.weight"
Truths = np.ndarray[tuple[int], np.dtype[np.bool_]]
SQUARE = Function("square", 1, lambda rows: rows * rows)
NOUGHT = Function("nought", 1, lambda rows: rows * np.float32(0))
HALF = Function("half", 1, lambda rows: rows * np.float32(0.5))
#: opens rows, anew with every call
Open = Callable[[], Rows]
#: prepares files in a folder, copies that may be changed, and opens rows of that kind
Kind = Callable[[Path], Sequence[Open]]


def each(opened: Callable[[], Iterable[Rows]]) -> Sequence[Open]:
    """The rows that ``opened`` opens, one by one."""
    return [lambda n=n: next(islice(opened(), n, None)) for n in range(len(list(opened())))]  # type: ignore[misc]


def copied(*names: str) -> Kind:
    def prepared(folder: Path) -> Sequence[Open]:
        path = folder / names[-1]
        source = DATA.joinpath(*names)
        shutil.copytree(source, path) if source.is_dir() else shutil.copyfile(source, path)
        return each(lambda: sources.open_checkpoint(path).tensors.values())

    return prepared


def transformed(folder: Path) -> Sequence[Open]:
    copied("checkpoints", "mistral-spm", "hf")(folder)

    def opened() -> Iterable[Rows]:
        plain = sources.open_checkpoint(folder / "hf").tensors
        query, norm, key = plain[QUERY], plain[NORM], plain[KEY]
        heads = take(query, interleaved(64, 4))
        yield heads
        yield take(query, interleaved(64, 16))  # heads of four rows
        yield take(Constant(np.arange(64, dtype=np.float32)), interleaved(64, 4))
        yield cut(query, 0, 37)
        yield every(query, 2, 1)
        yield every(query, 9, 0)
        yield every(cut(heads, 5, 60), 3, 2)
        yield from split(query, [40, 24], axis=1)
        yield every(query, 2, 1, axis=1)
        yield Stacked([query, heads, query])
        yield Stacked([query, key], (96, 64))
        yield join([query, key])
        yield join([norm, cut(norm, 3, 20)])
        experts = Stacked([query, heads, query])
        yield from split(experts, [40, 24], axis=1)
        yield every(experts, 2, 1, axis=1)
        yield every(experts, 2, 1)
        yield Transposed(query)
        yield Transposed(cut(experts, 10, 40, axis=1))
        yield Reshaped(query, (4, 16, 64))
        yield Reshaped(query, (64 * 64, 1))
        yield Reshaped(query, (512, 8))
        yield Reshaped(query, (8, 512))
        yield Reshaped(norm, (4, 16))
        yield Reshaped(query, (15, 256), 0)
        yield Reshaped(query, (1, 100), 3996)
        yield Reshaped(query, (10, 64), 128)
        yield WithLargest(query, "query")
        yield Reshaped(WithLargest(heads, "heads"), (15, 256), 7)
        yield TocRows(TocEntry("att_w_0", 3, 1, 4096, 64, 64, stride=64), "SFP", WithLargest(query, "query"))
        yield join([query, Zeros((3, 64), query.dtype)])
        yield Mapped(norm, HALF)
        yield Product(norm, Constant(np.arange(64, dtype=np.float32)))
        yield Product(query, heads)
        yield FoldedNorm([norm] * 4, is_offset=False)
        yield FoldedNorm([query, heads, query, Mapped(heads, SQUARE)], is_offset=True)
        yield Averaged(query, Reshaped(norm, (64, 1)), 0.25)
        yield Requantized(query, "Q5_0", np.stack([np.arange(64), np.ones(64)]).astype(np.float32))
        yield Positions(5, 16)
        yield Sum([query, heads, query])
        yield from (Resampled(Reshaped(query, (1, 64, 64)), 8, side) for side in (5, 13, 1))
        yield UnitColumns(query)
        yield Stacked([UnitColumns(query), query])
        yield Ternary(query)
        yield Projected(query, take(query, interleaved(64, 2)), norm)
        yield TokenIds(Mapped(norm, NOUGHT), 64)
        yield Mapped(Transposed(take(query, interleaved(64, 2))), HALF)

    return each(opened)


def tables(folder: Path) -> Sequence[Open]:
    numbers = np.arange(60).reshape(12, 5) * 7 % 90
    write_safetensors(folder / "t.safetensors", {"experts": ("I64", numbers)})
    return each(lambda: [Narrowed(rows) for rows in sources.open_checkpoint(folder / "t.safetensors").tensors.values()])


def gguf(folder: Path) -> Sequence[Open]:
    files = [streamconv.convert(PLAIN, folder / f"{name}.gguf", type=name)[0] for name in ("Q8_0", "BF16")]
    return each(lambda: [rows for path in files for rows in sources.open_checkpoint(path).tensors.values()])


def decoded(folder: Path) -> Sequence[Open]:
    path = folder / "encodings.safetensors"
    shutil.copyfile(DATA / "dequant" / "encodings.safetensors", path)

    def opened(case: dict[str, Any]) -> dequant.DecodedRows:
        stored = sources.open_checkpoint(path)
        stem = case["name"].split(".")[0] + "." + case["name"].split(".")[1]
        own = {name: rows for name, rows in stored.tensors.items() if name.startswith(stem)}
        found = dequant.decoded(replace(stored, tensors=own), case["quantization_config"], lenient=True)
        rows = found.tensors[case["name"]]
        assert isinstance(rows, dequant.DecodedRows)
        return rows

    found: list[Open] = []
    for case in json.loads((DATA / "dequant" / "cases.json").read_text()):
        found.append(lambda case=case: opened(case))  # type: ignore[misc]
        rows = opened(case)
        if rows.as_saved() is not rows:
            found.append(lambda case=case: opened(case).as_saved())  # type: ignore[misc]
    return found


def matrices(folder: Path) -> Callable[[], Mapping[str, Rows]]:
    """Stored matrices to make others of."""
    rng = np.random.default_rng(3)
    shapes = {"base": (50, 40), "tuned": (50, 40), "a": (3, 40), "b": (50, 3), "rows": (50,), "columns": (40,),
              "a_in": (3, 50), "b_out": (40, 3), "some": (4, 40), "bias": (40,)}  # fmt: skip
    write_safetensors(
        folder / "m.safetensors", {n: ("F32", rng.standard_normal(s, np.float32)) for n, s in shapes.items()}
    )
    return lambda: sources.open_checkpoint(folder / "m.safetensors").tensors


def changed_rows(folder: Path) -> Sequence[Open]:
    open_matrices = matrices(folder)

    def opened() -> Iterable[Rows]:
        m = open_matrices()
        update = LowRank("w", m["a"], m["b"], 0.5, False, Kept())
        turned = LowRank("w", m["a_in"], m["b_out"], 0.5, True, Kept())
        yield LoraRows(m["base"], update)
        yield LoraRows(m["base"], turned)
        yield DoraRows(m["base"], update, m["rows"])
        yield DoraColumns(m["base"], turned, m["columns"])
        yield AddedVector(m["columns"], m["bias"], 0.3)
        yield ReplacedRows(m["base"], [7, 3, 7, 49], m["some"])
        yield GateRows(PromptGate(m["base"], [([1, 5], [2]), ([30], [])]), "BF16")

    return each(opened)


def laid(folder: Path) -> Sequence[Open]:
    open_matrices = matrices(folder)
    which = np.array([0, 0, 0, 1, 1, ZERO, SOME, 0, 1, SOME, 0, 0])
    row = np.array([4, 5, 6, 49, 0, 0, 0, 9, 9, 0, 48, 1])
    some = {6: [(0, 3), (1, 44)], 9: [(1, 20)]}

    def opened() -> Iterable[Rows]:
        m = open_matrices()
        for places in (which, np.append(which, MEAN)):
            n = len(places)
            rows = np.resize(row, n)
            yield laid_out(Table([m["base"], m["tuned"]], places, rows, some, places >= 0), m["base"], "F32")
            vectors = [Reshaped(m["columns"], (40, 1)), Reshaped(m["bias"], (40, 1))]
            yield laid_out(Table(vectors, places, rows % 40, {6: [(0, 3)], 9: [(1, 2)]}, places >= 0), m["bias"], "F32")

    return each(opened)


def factors(folder: Path) -> Sequence[Open]:
    open_matrices = matrices(folder)

    def opened() -> Iterable[Rows]:
        m = open_matrices()
        right = RightRows("w", m["base"], m["tuned"], Settings(4))
        yield from (right, Transposed(right), LeftRows(right), LeftColumns(right))
        yield SameRows("w", [m["some"], open_matrices()["some"]], ["a", "b"])

    return each(opened)


def models(folder: Path) -> None:
    """Models ``a``, ``b`` and ``c`` of one shape, and an adapter ``d`` for them."""
    plain = sources.open_checkpoint(PLAIN)
    config = (PLAIN / "config.json").read_text()
    for seed, name in enumerate("abc"):
        rng = np.random.default_rng(seed)
        noisy = {
            n: ("F32", values_of(rows) + rng.standard_normal(rows.shape, np.float32) * np.float32(0.05))
            for n, rows in plain.tensors.items()
        }
        (folder / name).mkdir()
        write_safetensors(folder / name / "model.safetensors", noisy)
        (folder / name / "config.json").write_text(config)
    rng = np.random.default_rng(9)
    path = f"base_model.model.{QUERY.removesuffix('.weight')}"
    factors = {f"{path}.lora_A.weight": (2, 64), f"{path}.lora_B.weight": (64, 2)}
    (folder / "d").mkdir()
    write_safetensors(
        folder / "d" / "adapter_model.safetensors",
        {n: ("F32", rng.standard_normal(shape, np.float32)) for n, shape in factors.items()},
    )
    (folder / "d" / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4}))


def merged(recipe: str) -> Kind:
    def prepared(folder: Path) -> Sequence[Open]:
        models(folder)
        (folder / "recipe.yml").write_text(recipe)
        return each(
            lambda: merging.open_recipe(
                folder / "recipe.yml",
                lambda reference: sources.open_checkpoint(folder / reference),
                open_adapter=lambda reference: merging.lora.open_adapter(folder / reference),
            ).tensors.values()
        )

    return prepared


def gemma_cpp(folder: Path) -> Sequence[Open]:
    """Matrices in every type, and what is made of them; one has a scale."""
    toy = sbs_files.toy("paligemma2", "exporter")
    values = np.random.default_rng(0).uniform(-1, 1, 10_000).astype(np.float32)
    keys = ("att_ein_0", "qkv_ein_0", "gating_ein_1", "qkv_ein_1", "linear_w_1", "img_emb_kernel", "qkv_ein_w_0")
    for number, key in enumerate(keys):
        kind = ("SFP", "NUQ", "I8")[number % 3]
        rows, cols = toy.toc[key][-4:-2]
        toy.blobs[key] = sbs.encode(values[: rows * cols], kind)[0].tobytes()
        toy.toc[key] = sbs_files.entry(key, sbs_files.TYPES[kind], rows, cols, 1.5 if number % 2 else 1.0)
    path = folder / "x.sbs"
    path.write_bytes(toy.file())
    return each(lambda: as_hugging_face(sources.open_checkpoint(path)).tensors.values())


_OTHERS = (
    "models: [{model: b, parameters: {weight: 1, density: 0.4}}, {model: c, parameters: {weight: 0.5, density: 0.7}}]"
)
KINDS: dict[str, Kind] = {
    "safetensors": copied("checkpoints", "mistral-spm", "hf"),
    "torch": copied("torch", "zip_views_shared_bf16.bin"),
    "old torch": copied("torch", "legacy_views_shared_bf16.bin"),
    "tables": tables,
    "gguf": gguf,
    "gemma.cpp": gemma_cpp,
    "transformed": transformed,
    "decoded": decoded,
    "changed": changed_rows,
    "laid out": laid,
    "factors": factors,
    "linear": merged("merge_method: linear\nmodels: [{model: a, parameters: {weight: 1}}, {model: b, parameters: {weight: 2}}]"),
    "ties": merged(f"merge_method: ties\nbase_model: a\n{_OTHERS}\ndtype: bfloat16"),
    "dare": merged(f"merge_method: dare_ties\nbase_model: a\n{_OTHERS}"),
    "slerp": merged("merge_method: slerp\nbase_model: a\nmodels: [{model: a}, {model: b}]\nparameters: {t: 0.3}\ndtype: float16"),
    "adapter": merged("merge_method: passthrough\nmodels: [{model: a+d}]"),
    "mixture": merged(
        "base_model: a\ngate_mode: random\ndtype: bfloat16\n"
        "experts: [{source_model: a}, {source_model: b, noise_scale: 0.1, residual_scale: 0.5}]"
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_any_cut_of_the_rows_has_the_bits_of_the_whole(kind: str, tmp_path: Path) -> None:
    found = KINDS[kind](tmp_path)
    assert found
    for fresh in found:
        check_rows(fresh())


@pytest.mark.parametrize("kind", KINDS)
def test_rows_need_no_byte_that_they_do_not_name(kind: str, tmp_path: Path) -> None:
    for fresh in some(KINDS[kind](tmp_path)):
        n_rows = matrix_shape(fresh().shape)[0]
        for part in {(0, 0), (0, n_rows), (n_rows // 3, n_rows - n_rows // 3), (n_rows // 2, n_rows // 2 + 1)}:
            check_spans(fresh, part, tmp_path)


def some(found: Sequence[Open]) -> Sequence[Open]:
    """Of many, those of every kind and a few more."""
    return [fresh for n, fresh in enumerate(found) if n < 8 or n % 5 == 0] if len(found) < 60 else found[::2]


@pytest.mark.parametrize("kind", KINDS)
def test_rows_say_what_decides_their_values_whenever_they_are_asked(kind: str, tmp_path: Path) -> None:
    by_identity: dict[str, Rows] = {}
    for fresh in KINDS[kind](tmp_path):
        check_identity(fresh)
        rows = fresh()
        other = by_identity.setdefault(digest_of(rows.identity()), rows)
        assert same(values_of(rows), values_of(other)), f"{rows!r} and {other!r} say the same and are not"


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_measured_elsewhere_is_all_that_rows_need_to_know_beside_what_they_name(
    kind: str, tmp_path: Path
) -> None:
    for fresh in some(KINDS[kind](tmp_path)):
        check_measured(fresh, tmp_path)


def test_what_is_given_back_is_all_and_nothing_that_later_rows_need(tmp_path: Path) -> None:
    for rows in (fresh() for fresh in [*decoded(tmp_path)[::3], *transformed(tmp_path)]):
        record = FileRecorder()
        n_rows = matrix_shape(rows.shape)[0]
        every = record.bytes_of(rows.spans(0, n_rows))
        step = max(1, n_rows // 5)
        for start in range(0, n_rows, step):
            stop = min(n_rows, start + step)
            with record:
                rows.release(start, stop)
            later = record.bytes_of(rows.spans(stop, n_rows))
            assert not any((later[path] & given).any() for path, given in record.given.items() if path in later), (
                f"{rows!r}: {start}..{stop}"
            )
        assert record.given.keys() == every.keys(), f"{rows!r}"
        assert all((record.given[path] == needed).all() for path, needed in every.items()), f"{rows!r}"


class FileRecorder:
    """Notes which bytes are given back while it is in use."""

    def __init__(self) -> None:
        self.given: dict[Path, Truths] = {}
        self._was = MappedFile.release

    def bytes_of(self, spans: Iterable[Span], found: dict[Path, Truths] | None = None) -> dict[Path, Truths]:
        """File -> bool[size], whether each byte is in one of ``spans``, or was in ``found``; files of which any is."""
        found = {} if found is None else found
        for span in (s for s in spans if s.length):
            path, stop = span.file.path, span.offset + span.length
            assert stop <= path.stat().st_size, f"{span} is not in the file"
            if path not in found:
                found[path] = np.zeros(path.stat().st_size, bool)
            found[path][span.offset : stop] = True
        return found

    def __enter__(self) -> None:
        def release(file: MappedFile, offset: int, length: int) -> None:
            self.bytes_of([Span(file, offset, length)], self.given)

        MappedFile.release = release  # type: ignore[method-assign]

    def __exit__(self, *error: object) -> None:
        MappedFile.release = self._was  # type: ignore[method-assign]


def test_a_value_that_does_not_say_what_decides_it_is_refused() -> None:
    class Odd(Rows):
        def __init__(self, made: object) -> None:
            self.shape, self.dtype = (1,), "F32"

    with pytest.raises(TypeError, match="identity"):
        Odd(object()).identity()


def test_two_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for folder in "ab":
        (tmp_path / folder).mkdir()
        write_safetensors(tmp_path / folder / "m.safetensors", {"w": ("F32", np.ones((2, 4), np.float32))})
    a, b = (sources.open_checkpoint(tmp_path / f / "m.safetensors").tensors["w"] for f in "ab")
    first, second = Stacked([a, a, b], (6, 4)), Stacked([a, b, b], (6, 4))
    assert first.identity() == second.identity()
    assert [f.path.parent.name for f in first.files] == ["a", "a", "b"]
    assert [f.path.parent.name for f in second.files] == ["a", "b", "b"]
