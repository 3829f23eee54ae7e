"""Types of every tensor, against what llama-quantize chose."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
from mix_cases import Case, Model, recorded_models

from streamconv.errors import BadInput, UsageError
from streamconv.metadata import Metadata
from streamconv.quant.filetypes import AUTO, COPY, TARGET_TYPES, parse_file_type
from streamconv.quant.mix import assign_types, checkpoint_types
from streamconv.quant.mix_facts import (
    MixOptions,
    ModelFacts,
    TensorFacts,
    parse_tensor_rule,
    pruned_names,
    traversal_order,
)

MODELS = recorded_models(Path(__file__).parent.parent / "data")
LLAMA = ModelFacts("llama", 2, 8, 2)
Q = TARGET_TYPES


def facts(*rows: tuple[str, tuple[int, ...]], source: str = "BF16") -> list[TensorFacts]:
    return [TensorFacts(name, shape, source) for name, shape in rows]


def one(name: str, shape: tuple[int, ...], filetype: str, source: str = "BF16", **options: object) -> tuple[str, str]:
    """Type and reason of a single tensor in a model that also has an output matrix."""
    tensors = facts((name, shape), source=source)
    if name != "output.weight":
        tensors += facts(("output.weight", (32, 256)))
    choices = assign_types(tensors, LLAMA, parse_file_type(filetype), MixOptions(**options))  # type: ignore[arg-type]
    found = next(c for c in choices if c.name == name)
    return found.type.name, found.reason


# -- recorded decisions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_every_recorded_case_is_decided_as_llama_quantize_did(name: str) -> None:
    model = MODELS[name]
    assert list(model.disagreements(model.cases)) == []


def test_the_record_holds_refusals_and_every_selectable_file_type() -> None:
    cases = [c for m in MODELS.values() for c in m.cases]
    assert len({c.filetype for c in cases}) == 35
    assert len(cases) > 1000
    assert sum(c.types is None for c in cases) > 90


def _synth(reference: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("synth_model", reference / "golden" / "quants" / "synth_model.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["llama16", "tied4", "moe8", "phi3x8"])
def test_names_types_and_order_equal_the_full_reference(reference: Path, name: str) -> None:
    synth = _synth(reference)
    made = synth.MODELS[name]()
    keys = Metadata()
    for key, _, value in made["kv"]:
        if not isinstance(value, tuple):
            keys.u32(key, value) if isinstance(value, int) else keys.string(key, str(value))
    types = {0: "F32", 1: "F16", 30: "BF16"}
    tensors = [TensorFacts(n, s, types[t]) for n, s, t in made["tensors"]]
    model = Model(name, ModelFacts.from_metadata(keys), tensors, set(synth.imatrix_sums(made)), [])
    for c in json.loads((reference / "golden" / "quants" / "models" / f"{name}.json").read_text())["cases"]:
        case = Case(c["ftype"], c["imatrix"], c["options"], [])
        if c["result"] == "ok":
            assert [(x.name, x.type.name) for x in model.choices(case)] == [
                (n, t) for n, (t, _) in c["tensors"].items()
            ]
        else:
            with pytest.raises(UsageError):
                model.choices(case)


# -- reasons -----------------------------------------------------------------------------------------------------------


def test_reasons_say_why_in_a_few_words() -> None:
    v = "blk.0.attn_v.weight"
    assert one("blk.0.attn_q.weight", (8, 256), "Q4_K_M") == ("Q4_K", "default of Q4_K_M")
    assert one(v, (8, 256), "Q4_K_S") == ("Q5_K", "attn_v: in the first 4 layers")
    assert one(v, (8, 256), "Q4_K_S", pure=True) == ("Q4_K", "--pure Q4_K_S")
    assert one(v, (8, 80), "Q6_K") == ("F16", "Q6_K: columns 80 not a multiple of 256 -> F16")
    assert one(v, (8, 96), "Q3_K_S") == ("Q4_0", "Q3_K: columns 96 not a multiple of 256 -> Q4_0")
    assert one(v, (8, 256), "Q6_K", tensor_types=(("attn_v", Q["Q8_0"]),)) == ("Q8_0", "--tensor-type attn_v=Q8_0")
    assert one("blk.0.attn_norm.weight", (256,), "Q6_K", "F32") == ("F32", "a vector, never quantized")
    assert one("blk.0.ffn_gate_inp.weight", (8, 256), "Q6_K", "F32") == ("F32", "never quantized")
    assert one("output.weight", (8, 256), "Q4_K_M", leave_output_tensor=True) == ("BF16", "--leave-output-tensor")


def test_integers_stay_as_they_are() -> None:
    assert one("blk.0.map.weight", (8, 256), "Q4_K_M", "I32") == ("I32", "I32 is never quantized")


def test_copy_keeps_every_type_and_needs_no_permission() -> None:
    tensors = facts(("a.weight", (8, 256)), source="IQ2_XXS")
    assert assign_types(tensors, LLAMA, COPY)[0].type.name == "IQ2_XXS"


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_a_missing_imatrix_is_refused_with_the_way_to_get_one() -> None:
    with pytest.raises(UsageError) as e:
        one("blk.0.attn_q.weight", (8, 256), "IQ2_XS")
    assert "IQ2_XS needs an importance matrix: blk.0.attn_q.weight becomes IQ2_XS" in e.value.message
    assert "llama-imatrix -m MODEL.gguf -f calibration.txt -o imatrix.gguf" in e.value.hint
    assert "--imatrix imatrix.gguf" in e.value.hint


def test_an_imatrix_without_the_tensor_is_refused_by_name() -> None:
    tensors = facts(("blk.0.attn_q.weight", (8, 256)), ("blk.1.attn_q.weight", (8, 256)), ("output.weight", (8, 256)))
    with pytest.raises(UsageError, match=r"no entry for blk\.1\.attn_q\.weight, which IQ2_XS needs"):
        assign_types(tensors, LLAMA, parse_file_type("IQ2_XS"), imatrix_names={"blk.0.attn_q.weight"})


def test_embeddings_without_weights_cannot_take_types_that_need_them() -> None:
    tensors = facts(("token_embd.weight", (32, 256)), ("output.weight", (32, 256)))
    for filetype, options in [
        ("IQ2_XS", MixOptions(pure=True)),
        ("Q4_K_M", MixOptions(token_embedding_type=Q["IQ1_S"])),
        ("Q4_K_M", MixOptions(tensor_types=(("token_embd", Q["IQ2_XXS"]),))),
    ]:
        with pytest.raises(UsageError, match=r"token_embd\.weight cannot be IQ.*no importance weights") as e:
            assign_types(tensors, LLAMA, parse_file_type(filetype), options, imatrix_names={"output.weight"})
        assert "--token-embedding-type" in e.value.hint


def test_pruned_blocks_look_up_weights_under_their_old_number() -> None:
    tensors = facts(*((f"blk.{i}.attn_q.weight", (8, 256)) for i in range(3)))
    choices = assign_types(
        tensors, LLAMA, parse_file_type("IQ2_XS"), MixOptions(prune_layers=(0,)),
        imatrix_names={"blk.1.attn_q.weight", "blk.2.attn_q.weight"},
    )  # fmt: skip
    assert [(c.name, c.source) for c in choices] == [
        ("blk.0.attn_q.weight", "blk.1.attn_q.weight"),
        ("blk.1.attn_q.weight", "blk.2.attn_q.weight"),
    ]


def test_requantizing_needs_permission_but_copying_does_not() -> None:
    name = "blk.0.attn_q.weight"
    with pytest.raises(UsageError, match=r"already quantized \(Q8_0\)") as e:
        one(name, (8, 256), "Q4_K_M", "Q8_0")
    assert "--allow-requantize" in e.value.hint
    assert one(name, (8, 256), "Q4_K_M", "Q8_0", allow_requantize=True)[0] == "Q4_K"
    assert one(name, (8, 256), "Q8_0", "Q8_0")[0] == "Q8_0"
    # equal types are copied, so no importance matrix is asked for either
    assert one(name, (8, 256), "IQ2_XXS", "IQ2_XXS")[0] == "IQ2_XXS"


def test_a_rule_may_keep_a_type_that_nobody_could_make_without_importance_weights() -> None:
    tensors = facts(("blk.0.ffn_down.weight", (8, 256)), source="IQ1_S")
    rule = MixOptions(tensor_types=(("ffn_down", Q["IQ1_S"]),), allow_requantize=True)
    assert assign_types(tensors, LLAMA, parse_file_type("Q8_0"), rule)[0].type.name == "IQ1_S"
    with pytest.raises(UsageError, match="IQ1_S"):
        assign_types(facts(("blk.0.ffn_down.weight", (8, 256)), source="Q8_0"), LLAMA, parse_file_type("Q8_0"), rule)


def test_an_override_that_does_not_fit_the_columns_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--token-embedding-type Q4_K: token_embd\.weight has 80 columns"):
        one("token_embd.weight", (32, 80), "Q8_0", token_embedding_type=Q["Q4_K"])
    with pytest.raises(UsageError, match=r"--output-tensor-type Q6_K: output\.weight has 96 columns"):
        one("output.weight", (32, 96), "Q8_0", output_tensor_type=Q["Q6_K"])
    with pytest.raises(UsageError, match="has no substitute"):
        one("blk.0.attn_q.weight", (32, 96), "Q1_0")


def test_a_type_gguf_cannot_hold_and_a_block_that_is_not_there_are_bad_input() -> None:
    with pytest.raises(BadInput, match="F8_E4M3"):
        one("blk.0.attn_q.weight", (8, 256), "Q4_K_M", "F8_E4M3")
    model = ModelFacts("llama", 2, 8, 2, n_expert=4)
    for name in ("blk.2.ffn_down_exps.weight", "mtp.ffn_down_exps.weight"):
        with pytest.raises(BadInput, match="2 layers"):
            assign_types(facts((name, (4, 8, 256))), model, parse_file_type("Q4_K_M"))


def test_auto_is_for_checkpoints() -> None:
    with pytest.raises(UsageError, match="auto"):
        assign_types([], LLAMA, AUTO)


# -- checkpoints -------------------------------------------------------------------------------------------------------

STORED = facts(("blk.0.attn_q.weight", (256, 256)), ("blk.0.attn_norm.weight", (256,)), source="BF16") + facts(
    ("blk.0.ffn_gate_inp.weight", (8, 256)), ("output.weight", (32, 256)), source="F8_E4M3"
)


def checkpoint(filetype: str, **options: object) -> dict[str, str]:
    """File type and types of a checkpoint, some of which is stored as what no GGUF file holds."""
    given = MixOptions(**options)  # type: ignore[arg-type]
    found, choices = checkpoint_types(STORED, LLAMA, parse_file_type(filetype), given, {})
    return {"": found.name, **{c.name.removesuffix(".weight"): c.type.name for c in choices}}


def test_without_a_mix_the_converter_decides_and_auto_is_the_checkpoints_own_type() -> None:
    plain = {"blk.0.attn_norm": "F32", "blk.0.ffn_gate_inp": "F32"}
    assert checkpoint("auto") == {"": "BF16", **plain, "blk.0.attn_q": "BF16", "output": "BF16"}
    assert checkpoint("Q8_0") == {"": "Q8_0", **plain, "blk.0.attn_q": "Q8_0", "output": "Q8_0"}
    # what says nothing of types calls for no mix
    assert checkpoint("F16", allow_requantize=True) == {"": "F16", **plain, "blk.0.attn_q": "F16", "output": "F16"}


@pytest.mark.parametrize(
    ("filetype", "options", "query", "output"),
    [
        ("Q4_K_M", {}, "Q4_K", "Q6_K"),
        ("Q4_K_M", {"leave_output_tensor": True}, "Q4_K", "BF16"),
        ("Q8_0", {"leave_output_tensor": True}, "Q8_0", "BF16"),
        ("F32", {"leave_output_tensor": True}, "F32", "F32"),
        ("F16", {"tensor_types": (("attn_q", Q["Q8_0"]),)}, "F16", "F16"),
        ("copy", {}, "BF16", "BF16"),
    ],
)
def test_what_a_mix_keeps_of_a_checkpoint_it_keeps_as_the_converter_would_have_written_it(
    filetype: str, options: dict[str, object], query: str, output: str
) -> None:
    found = checkpoint(filetype, **options)
    assert (found["blk.0.attn_q"], found["output"]) == (query, output)
    # for the converter both are F32, whatever they are stored in
    assert (found["blk.0.attn_norm"], found["blk.0.ffn_gate_inp"]) == ("F32", "F32")


# -- rules given by the user -------------------------------------------------------------------------------------------


def test_tensor_type_rules_are_patterns_in_lower_case() -> None:
    assert parse_tensor_rule("Blk\\.(0|1)\\.ATTN_V=q8_0") == ("blk\\.(0|1)\\.attn_v", Q["Q8_0"])
    assert parse_tensor_rule("(?=ffn)ffn_up=F16") == ("(?=ffn)ffn_up", Q["F16"])


@pytest.mark.parametrize("text", ["attn_v", "=Q8_0", "attn_v=", "attn_v=Q9", "attn_(v=Q8_0", "attn_v=I32"])
def test_malformed_rules_are_usage_errors(text: str) -> None:
    with pytest.raises(UsageError):
        parse_tensor_rule(text)


def test_a_file_type_where_a_tensor_type_is_needed_is_explained() -> None:
    with pytest.raises(UsageError, match="is a file type") as e:
        parse_tensor_rule("attn_v=Q4_K_M")
    assert "Q4_K" in e.value.hint


# -- order and pruning -------------------------------------------------------------------------------------------------


def test_traversal_goes_by_block_then_bytewise() -> None:
    names = ["blk.10.a", "blk.9.b", "blk.9.B", "rope_freqs.weight", "blk.9.b_", "output.weight", "v.blk.3.a"]
    want = ["output.weight", "rope_freqs.weight", "v.blk.3.a", "blk.9.B", "blk.9.b", "blk.9.b_", "blk.10.a"]
    assert traversal_order(names) == want


def test_pruning_renumbers_what_follows() -> None:
    names = ["a.weight", *(f"blk.{i}.x" for i in range(6))]
    assert pruned_names(names, (1, 3)) == (
        {
            "a.weight": "a.weight",
            "blk.0.x": "blk.0.x",
            "blk.2.x": "blk.1.x",
            "blk.4.x": "blk.2.x",
            "blk.5.x": "blk.3.x",
        },
        4,
    )
    assert pruned_names(names, ()) == ({n: n for n in names}, 6)


def test_pruning_what_is_not_there_or_everything_is_refused() -> None:
    names = ["blk.0.x", "blk.1.x"]
    with pytest.raises(UsageError, match="layers 0 to 1"):
        pruned_names(names, (2,))
    with pytest.raises(UsageError, match="every layer"):
        pruned_names(names, (0, 1))


def test_model_facts_come_from_the_keys_of_a_file() -> None:
    keys = Metadata()
    keys.string("general.architecture", "openelm")
    keys.u32("openelm.block_count", 2)
    keys.array("openelm.attention.head_count", "INT32", [12, 16])
    keys.array("openelm.attention.head_count_kv", "INT32", [3, 4])
    assert ModelFacts.from_metadata(keys) == ModelFacts("openelm", 2, 12, 3, 0)
    keys.remove("openelm.attention.head_count_kv")
    keys.u32("openelm.expert_count", 8)
    assert ModelFacts.from_metadata(keys) == ModelFacts("openelm", 2, 12, 12, 8)
