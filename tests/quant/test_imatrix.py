"""Importance matrices in both formats: values, merging, and everything that can be wrong with a file."""

from __future__ import annotations

import importlib.util
import struct
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamconv.errors import BadInput, InputMissing, UsageError
from streamconv.quant.imatrix import load_imatrix

KEYS: dict[str, Any] = {
    "general.type": "imatrix",
    "imatrix.datasets": ["calib.txt", "more.txt"],
    "imatrix.chunk_count": 3,
    "imatrix.chunk_size": 512,
}


def _s(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def gguf_bytes(
    entries: dict[str, tuple[Any, Any]],
    keys: dict[str, Any] = KEYS,
    extra: tuple[tuple[str, Any], ...] = (),
    kind: int = 0,
) -> bytes:
    """An importance matrix file; ``entries``: name -> (sums [n_mat, n_cols], counts [n_mat])."""
    tensors = [*extra]
    for name, (sums, counts) in entries.items():
        if sums is not None:
            tensors.append((f"{name}.in_sum2", np.asarray(sums, "<f4")))
        if counts is not None:
            tensors.append((f"{name}.counts", np.asarray(counts, "<f4").reshape(-1, 1)))
    head = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(keys))]
    for key, value in keys.items():
        head.append(_s(key))
        if isinstance(value, str):
            head += [struct.pack("<I", 8), _s(value)]
        elif isinstance(value, list):
            head += [struct.pack("<IIQ", 9, 8, len(value)), *map(_s, value)]
        else:
            head.append(struct.pack("<II", 4, value))
    offset, data = 0, b""
    for name, array in tensors:
        head += [_s(name), struct.pack("<I", array.ndim), struct.pack(f"<{array.ndim}Q", *reversed(array.shape))]
        head.append(struct.pack("<IQ", kind, offset))
        block = array.tobytes()
        data += block + b"\0" * (-len(block) % 32)
        offset = len(data)
    blob = b"".join(head)
    return blob + b"\0" * (-len(blob) % 32) + data


def dat_bytes(entries: dict[str, tuple[int, Any]], tail: tuple[int, str] | None = (3, "calib.txt")) -> bytes:
    """The older format; ``entries``: name -> (calls, values)."""
    blob = struct.pack("<i", len(entries))
    for name, (calls, values) in entries.items():
        array = np.asarray(values, "<f4").ravel()
        blob += struct.pack("<i", len(name)) + name.encode() + struct.pack("<ii", calls, array.size) + array.tobytes()
    return blob if tail is None else blob + struct.pack("<ii", tail[0], len(tail[1])) + tail[1].encode()


def write(path: Path, blob: bytes) -> Path:
    path.write_bytes(blob)
    return path


SUMS = np.array([[3.0, 1.0, 7.0], [2.0, 4.0, 0.5]], np.float32)


# -- values ------------------------------------------------------------------------------------------------------------


def test_weights_are_sums_over_counts_in_float32(tmp_path: Path) -> None:
    m = load_imatrix(write(tmp_path / "i.gguf", gguf_bytes({"a.weight": (SUMS[:1], [7])})))
    got = m.weights("a.weight", 3)
    assert got is not None
    assert got.dtype == np.float32
    assert got.tolist() == (SUMS[:1] / np.float32(7)).tolist()
    assert m.weights("b.weight", 3) is None
    assert (m.entries_count, m.chunks_count, m.dataset, m.files) == (1, 3, "calib.txt", (tmp_path / "i.gguf",))
    assert list(m) == ["a.weight"]
    assert "a.weight" in m


def test_each_expert_has_its_count_and_an_unreached_one_weighs_one(tmp_path: Path) -> None:
    sums = np.vstack([SUMS, SUMS[:1] * 0])
    m = load_imatrix(write(tmp_path / "i.gguf", gguf_bytes({"e.weight": (sums, [4, 2.6, 0])})))
    got = m.weights("e.weight", 3, 3)
    assert got is not None
    assert got.tolist() == [(SUMS[0] / np.float32(4)).tolist(), (SUMS[1] / np.float32(3)).tolist(), [1.0, 1.0, 1.0]]


def test_the_older_format_divides_by_calls_and_shares_them_between_experts(tmp_path: Path) -> None:
    path = write(tmp_path / "i.dat", dat_bytes({"e.weight": (3, SUMS), "raw.weight": (0, SUMS[0])}))
    m = load_imatrix(path)
    got = m.weights("e.weight", 3, 2)
    assert got is not None
    assert got.tolist() == (SUMS / np.float32(3)).tolist()
    raw = m.weights("raw.weight", 3)
    assert raw is not None
    assert raw.tolist() == [SUMS[0].tolist()]
    assert (m.dataset, m.chunks_count, m.entries_count) == ("calib.txt", 3, 2)


def test_the_older_format_may_end_after_its_entries(tmp_path: Path) -> None:
    m = load_imatrix(write(tmp_path / "i.dat", dat_bytes({"a": (1, [1.0])}, tail=None)))
    assert (m.dataset, m.chunks_count) == ("", 0)


@pytest.mark.parametrize("name", ["llama16", "moe8"])
def test_both_formats_give_the_vectors_of_the_reference_models(reference: Path, tmp_path: Path, name: str) -> None:
    spec = importlib.util.spec_from_file_location("synth_model", reference / "golden" / "quants" / "synth_model.py")
    assert spec
    assert spec.loader
    synth = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(synth)
    model = synth.MODELS[name]()
    synth.write_imatrix_gguf(model, tmp_path / "i.gguf")
    synth.write_imatrix_dat(model, tmp_path / "i.dat")
    new, old = load_imatrix(tmp_path / "i.gguf"), load_imatrix(tmp_path / "i.dat")
    shapes = {n: s for n, s, _ in model["tensors"]}
    want = synth.imatrix_weights(model)
    assert set(new) == set(old) == set(want)
    for tensor, vector in want.items():
        experts = shapes[tensor][0] if len(shapes[tensor]) == 3 else 1
        got, rounded = (m.weights(tensor, shapes[tensor][-1], experts) for m in (new, old))
        assert got is not None
        assert rounded is not None
        assert got.tobytes() == vector.tobytes()
        np.testing.assert_allclose(rounded, got, rtol=2e-7)


# -- choosing and merging ----------------------------------------------------------------------------------------------


def test_entries_can_be_included_or_excluded_by_a_part_of_their_name(tmp_path: Path) -> None:
    path = write(tmp_path / "i.gguf", gguf_bytes({n: (SUMS[:1], [1]) for n in ("attn_q", "attn_k", "ffn_up")}))
    assert list(load_imatrix(path, include=["attn"])) == ["attn_q", "attn_k"]
    assert list(load_imatrix(path, exclude=["_q", "ffn"])) == ["attn_k"]
    assert load_imatrix(path, include=["attn"]).entries_count == 2
    with pytest.raises(UsageError, match="not both"):
        load_imatrix(path, include=["a"], exclude=["b"])
    with pytest.raises(UsageError):
        load_imatrix([])


def test_several_files_add_their_sums_and_counts(tmp_path: Path) -> None:
    a = write(tmp_path / "a.gguf", gguf_bytes({"e": (SUMS, [4, 0]), "only_a": (SUMS[:1], [2])}))
    b = write(tmp_path / "b.gguf", gguf_bytes({"e": (SUMS * 3, [1, 0])}, {**KEYS, "imatrix.datasets": ["other"]}))
    m = load_imatrix([a, b])
    got, single = m.weights("e", 3, 2), m.weights("only_a", 3)
    assert got is not None
    assert single is not None
    assert got.tolist() == [((SUMS[0] + SUMS[0] * 3) / np.float32(5)).tolist(), [1.0, 1.0, 1.0]]
    assert single.tolist() == [(SUMS[0] / 2).tolist()]
    assert (m.entries_count, m.chunks_count, m.dataset, len(m.files)) == (2, 6, "calib.txt", 2)


def test_a_file_that_counts_groups_of_experts_counts_for_every_expert_of_the_group(tmp_path: Path) -> None:
    sums = np.arange(1, 13, dtype=np.float32).reshape(4, 3)
    each = write(tmp_path / "each.gguf", gguf_bytes({"e": (sums, [1, 2, 4, 8])}))
    pairs = write(tmp_path / "pairs.gguf", gguf_bytes({"e": (sums.reshape(2, 6), [100, 1000])}))
    for files in ([each, pairs], [pairs, each]):
        got = load_imatrix(files).weights("e", 3, 4)
        assert got is not None
        assert got.tolist() == (2 * sums / np.array([[101], [102], [1004], [1008]], np.float32)).tolist()


def test_older_files_add_values_and_calls(tmp_path: Path) -> None:
    a = write(tmp_path / "a.dat", dat_bytes({"x": (2, SUMS[0])}))
    b = write(tmp_path / "b.dat", dat_bytes({"x": (6, SUMS[1])}))
    got = load_imatrix([a, b]).weights("x", 3)
    assert got is not None
    assert got.tolist() == [((SUMS[0] + SUMS[1]) / np.float32(8)).tolist()]


def test_where_formats_meet_the_older_one_is_counted_in_tokens(tmp_path: Path) -> None:
    old = write(tmp_path / "a.dat", dat_bytes({"e": (2, SUMS)}))
    new = write(tmp_path / "b.gguf", gguf_bytes({"e": (SUMS * 512, [512, 1024])}))
    got = load_imatrix([old, new]).weights("e", 3, 2)
    assert got is not None
    want = SUMS * 1024 / np.array([[512 * 3], [512 * 4]], np.float32)
    assert got.tolist() == want.tolist()


def test_the_digest_tells_files_and_selections_apart(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dat", dat_bytes({"x": (2, SUMS[0]), "y": (2, SUMS[0])}))
    other = write(tmp_path / "b.dat", dat_bytes({"x": (2, SUMS[1]), "y": (2, SUMS[0])}))
    digests = [m.digest for m in (load_imatrix(path), load_imatrix(path, exclude=["x"]), load_imatrix(other))]
    assert len(set(digests)) == 3
    assert digests[0] == load_imatrix(path).digest


# -- what may be wrong -------------------------------------------------------------------------------------------------


def test_a_wrong_length_names_the_tensor_but_embeddings_are_let_pass(tmp_path: Path) -> None:
    names = ("a.weight", "token_embd.weight", "per_layer_token_embd.weight")
    m = load_imatrix(write(tmp_path / "i.gguf", gguf_bytes({n: (SUMS[:1], [1]) for n in names})))
    with pytest.raises(BadInput, match=r"i\.gguf: the entry for a\.weight has 3 values, the tensor needs 4"):
        m.weights("a.weight", 4)
    with pytest.raises(BadInput, match="needs 2 x 3"):
        m.weights("a.weight", 3, 2)
    assert m.weights("token_embd.weight", 4) is None
    assert m.weights("per_layer_token_embd.weight", 4) is None
    assert m.weights("token_embd.weight", 3) is not None


@pytest.mark.parametrize(("sums", "counts"), [([[1, np.nan]], [1]), ([[np.inf, 1]], [2]), ([[1, 1]], [np.nan])])
def test_values_that_are_not_finite_are_refused(tmp_path: Path, sums: Any, counts: Any) -> None:
    m = load_imatrix(write(tmp_path / "i.gguf", gguf_bytes({"a.weight": (sums, counts)})))
    with pytest.raises(BadInput, match=r"a\.weight holds NaN or Inf"):
        m.weights("a.weight", 2)


def test_files_of_different_models_do_not_merge(tmp_path: Path) -> None:
    a = write(tmp_path / "a.dat", dat_bytes({"x": (2, SUMS[0])}))
    b = write(tmp_path / "b.dat", dat_bytes({"x": (2, SUMS)}))
    with pytest.raises(BadInput, match=r"b\.dat: the entry for x has 6 values, 3 in .*a\.dat"):
        load_imatrix([a, b]).weights("x", 3)


def test_a_missing_file_and_a_folder_are_said_to_be_so(tmp_path: Path) -> None:
    with pytest.raises(InputMissing, match=r"no\.gguf"):
        load_imatrix(tmp_path / "no.gguf")
    with pytest.raises(BadInput):
        load_imatrix(tmp_path)


@pytest.mark.parametrize("form", ["gguf", "dat"])
def test_a_file_cut_anywhere_is_refused_with_its_name(tmp_path: Path, form: str) -> None:
    entries = {"a.weight": (SUMS[:1], [1]), "b.weight": (SUMS, [1, 2])}
    whole = gguf_bytes(entries) if form == "gguf" else dat_bytes({"a.weight": (1, SUMS[0]), "b.weight": (2, SUMS)})
    path = tmp_path / f"cut.{form}"
    # the last tensor's padding, and the optional end of the older format, may be missing
    needed = (
        len(whole) - 24 if form == "gguf" else len(dat_bytes({"a.weight": (1, SUMS[0]), "b.weight": (2, SUMS)}, None))
    )
    for size in range(needed):
        path.write_bytes(whole[:size])
        with pytest.raises(BadInput, match=rf"cut\.{form}"):
            load_imatrix(path)
    path.write_bytes(whole[:needed])
    assert load_imatrix(path).entries_count == 2


@pytest.mark.parametrize("form", ["gguf", "dat"])
def test_random_damage_is_refused_or_harmless_but_never_a_crash(tmp_path: Path, form: str) -> None:
    entries = {"a.weight": (SUMS[:1], [1]), "b.weight": (SUMS, [1, 2])}
    whole = gguf_bytes(entries) if form == "gguf" else dat_bytes({"a.weight": (1, SUMS[0]), "b.weight": (2, SUMS)})
    rng = np.random.default_rng(7)
    path = tmp_path / "damaged"
    for _ in range(400):
        blob = bytearray(whole)
        blob[rng.integers(len(blob))] = rng.integers(256)
        path.write_bytes(blob)
        with suppress(BadInput):
            m = load_imatrix(path)
            for name in m:
                m.weights(name, 3, 1 if name.startswith("a") else 2)


@pytest.mark.parametrize(
    ("blob", "words"),
    [
        (b"", "the number of entries needs 4 bytes, 0 are left"),
        (struct.pack("<i", 0), "claims 0 entries"),
        (b"PK\3\4 not an imatrix at all", "byte 8"),
        (dat_bytes({"a": (1, [])}), "a has 0 values"),
        (gguf_bytes({}), "empty"),
        (gguf_bytes({"a": (SUMS, None)}), "a lacks its counts"),
        (gguf_bytes({"a": (None, [1])}), "a lacks its sums"),
        (gguf_bytes({"a": (SUMS, [1, 2, 3])}), "2 rows of sums but 3 counts"),
        (gguf_bytes({"a": (SUMS, [1, 2])}, kind=1), r"a\.in_sum2 is not F32"),
        (gguf_bytes({"a": (SUMS, [1, 2])}, extra=(("a.counts", np.ones((2, 1), "<f4")),)), "is there twice"),
        (gguf_bytes({"a": (SUMS, [1, 2])}, {**KEYS, "general.type": "model"}), r"general\.type is model"),
        (gguf_bytes({"a": (SUMS, [1, 2])}, {k: v for k, v in KEYS.items() if "size" not in k}), "not an importance"),
        (gguf_bytes({"a": (SUMS, [1, 2])}, {**KEYS, "imatrix.datasets": "x"}), "not a list of strings"),
        (gguf_bytes({"a": (SUMS, [1, 2])}, {**KEYS, "imatrix.chunk_count": "x"}), "must be integers"),
        (gguf_bytes({"a": (SUMS, [1, 2])}, {**KEYS, "general.alignment": 3}), "not a power of two"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "version 50331648"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 60), "a key needs 8 bytes"),
    ],
)
def test_damage_is_named(tmp_path: Path, blob: bytes, words: str) -> None:
    with pytest.raises(BadInput, match=words) as e:
        load_imatrix(write(tmp_path / "bad.bin", blob))
    assert "bad.bin" in e.value.message


def test_other_tensors_in_the_file_are_passed_over(tmp_path: Path) -> None:
    blob = gguf_bytes({"a": (SUMS, [1, 2])}, extra=(("a.in_sum", np.ones((2, 3), "<f4")),))
    assert list(load_imatrix(write(tmp_path / "i.gguf", blob))) == ["a"]


@pytest.mark.parametrize("what", ["elements", "keys", "text"])
def test_a_header_that_takes_too_much_is_refused(what: str, tmp_path: Path) -> None:
    array = {
        "elements": (1, _s("a") + struct.pack("<IIQ", 9, 0, 30_000_000) + bytes(30_000_000)),
        "keys": (1 << 60, (_s("a") + struct.pack("<IB", 0, 0)) * 2_000_000),
        "text": (1, _s("a") + struct.pack("<I", 8) + _s("x" * (2 << 20))),
    }
    n_keys, body = array[what]
    path = write(tmp_path / "i.gguf", b"GGUF" + struct.pack("<IQQ", 3, 0, n_keys) + body)
    began = time.process_time()
    with pytest.raises(BadInput, match=r"i\.gguf is damaged at byte \d+: (it describes more|a has 2097152 bytes)"):
        load_imatrix([path])
    assert time.process_time() - began < 8  # below 2 on a machine of 2024
