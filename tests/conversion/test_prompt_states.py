"""Gates of mixtures that are made of what the base model's layers are given for prompts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from row_contract import check_identity, check_measured, check_rows, check_spans
from small_models import changed, read_safetensors

import streamconv
from streamconv import merging
from streamconv.conversion.opening import Opener
from streamconv.conversion.options import Options
from streamconv.errors import BadInput, UsageError
from streamconv.rows import Floats, Rows
from streamconv.sources import open_checkpoint

MODEL = Path(__file__).resolve().parents[1] / "data" / "checkpoints" / "qwen3-tied" / "hf"
#: a model of four layers, and a mixture of two of it
RECIPE = """
name: tall
merge_method: passthrough
dtype: float32
slices:
- sources: [{model: MODEL, layer_range: [0, 2]}]
- sources: [{model: MODEL, layer_range: [0, 2]}]
---
base_model: tall
gate_mode: hidden
dtype: float32
experts:
- {source_model: tall, positive_prompts: [Write a program, "def f(x): return"], negative_prompts: [Once upon a time there was]}
- {source_model: tall, noise_scale: 0.1, positive_prompts: ["Tell me a story about a king, please"]}
"""
_AVERAGE = RECIPE.replace("gate_mode: hidden", "gate_mode: hidden_avg").replace(', "def f(x): return"', "")
#: columns 0, 13, 40 and 63 of every gate that mergekit 0.1.5 makes in float32
WANTED = {
    RECIPE: [
        [[0.1037, -0.2443, -0.12059, -0.24733], [0.11885, -0.08241, -0.04622, -0.05943]],
        [[-0.06138, -0.04393, -0.12921, -0.26766], [-0.0259, 0.12153, 0.12034, -0.03838]],
        [[-0.04838, 0.04002, -0.03881, -0.21411], [0.01071, 0.15254, 0.06908, -0.03159]],
        [[-0.10976, 0.03118, -0.14363, -0.2608], [0.00862, 0.09447, -0.03706, 0.042]],
    ],
    _AVERAGE: [
        [[0.18301, 0.10955, -0.08751, -0.16287], [0.15036, -0.00397, -0.0173, -0.1539]],
        [[0.2266, 0.05456, -0.03472, 0.07647], [0.06228, 0.1995, 0.00994, 0.06271]],
        [[0.2175, 0.17864, -0.04489, 0.11393], [-0.05538, 0.16893, -0.07996, 0.00153]],
        [[0.23869, 0.0792, 0.08424, -0.05117], [-0.05971, 0.14369, -0.12695, 0.14009]],
    ],
}
COLUMNS = [0, 13, 40, 63]


def gates(recipe: Path, **options: int) -> list[Rows]:
    tensors = Opener(Options(**options)).open(recipe).tensors  # type: ignore[arg-type]
    return [rows for name, rows in tensors.items() if name.endswith("mlp.gate.weight")]


def written(path: Path, text: str, model: Path = MODEL) -> Path:
    path.write_text(text.replace("MODEL", str(model)))
    return path


def values(rows: list[Rows]) -> Floats:
    return np.stack([each.read(0, each.shape[0]) for each in rows])


@pytest.mark.parametrize("text", [RECIPE, _AVERAGE])
def test_every_layer_has_the_gate_that_mergekit_makes(text: str, tmp_path: Path) -> None:
    found = values(gates(written(tmp_path / "r.yml", text)))
    assert found.shape == (4, 2, 64)
    np.testing.assert_allclose(found[:, :, COLUMNS], WANTED[text], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=2), 1, rtol=1e-6)


def test_the_mode_of_a_recipe_without_one_is_that_of_the_last_token(tmp_path: Path) -> None:
    wanted = values(gates(written(tmp_path / "r.yml", RECIPE)))
    for said in ("", "gate_mode: hidden_last\n"):
        other = written(tmp_path / "other.yml", RECIPE.replace("gate_mode: hidden\n", said))
        assert values(gates(other)).tobytes() == wanted.tobytes()


def test_a_file_has_the_same_gates_for_any_threads_and_memory(tmp_path: Path) -> None:
    recipe = written(
        tmp_path / "r.yml", RECIPE.replace("[Write a program,", f"[{'many words ' * 300}, Write a program,")
    )
    made = []
    for threads, ram in ((1, 2 << 30), (3, 128 << 20)):
        streamconv.convert(recipe, tmp_path / str(threads), threads=threads, ram=ram)
        tensors = read_safetensors(tmp_path / str(threads) / "model.safetensors")
        made.append([words for name, (_, words) in tensors.items() if name.endswith("mlp.gate.weight")])
    assert len(made[0]) == 4
    assert [words.tobytes() for words in made[0]] == [words.tobytes() for words in made[1]]
    assert np.stack(made[0]).tobytes() == values(gates(recipe)).tobytes()


def test_gates_keep_what_rows_promise(tmp_path: Path) -> None:
    changed(MODEL, tmp_path / "m")
    text = RECIPE.split("---")[1].replace("tall", "MODEL").replace("float32", "bfloat16")
    recipe = written(tmp_path / "r.yml", text, tmp_path / "m")

    def fresh() -> Rows:
        return gates(recipe)[1]

    check_rows(fresh())
    check_identity(fresh)
    check_measured(fresh, tmp_path / "m")
    check_spans(fresh, (0, 1), tmp_path / "m")


def test_prompts_their_order_and_the_configuration_decide_the_gate(tmp_path: Path) -> None:
    text = RECIPE.split("---")[1].replace("tall", "MODEL")
    scaled = changed(MODEL, tmp_path / "m", config=lambda c: c.update(rope_theta=500.0))
    found = [
        gates(written(tmp_path / "r.yml", text)),
        gates(written(tmp_path / "r.yml", text.replace("a program", "a programme"))),
        gates(written(tmp_path / "r.yml", text, scaled)),
    ]
    assert len({str(each[1].identity()) for each in found}) == 3
    assert len({values(each).tobytes() for each in found}) == 3


def test_a_shared_expert_has_a_gate_of_its_prompts(tmp_path: Path) -> None:
    def qwen2(c: dict[str, object]) -> None:
        c.update(architectures=["Qwen2ForCausalLM"], model_type="qwen2")

    def plain(tensors: dict[str, object]) -> dict[str, object]:
        return {name: each for name, each in tensors.items() if "q_norm" not in name and "k_norm" not in name}

    model = changed(MODEL, tmp_path / "m", plain, qwen2)  # type: ignore[arg-type]
    shared = "shared_experts: [{source_model: MODEL, positive_prompts: [Write a program]}]\n"
    text = RECIPE.split("---")[1].replace("tall", "MODEL").replace(', "def f(x): return"], negative', "], negative")
    recipe = written(
        tmp_path / "r.yml", text.replace("negative_prompts: [Once upon a time there was]", "") + shared, model
    )
    tensors = Opener(Options()).open(recipe).tensors
    for layer in range(2):
        own, other = (
            tensors[f"model.layers.{layer}.mlp.{name}.weight"].read(0, 1) for name in ("gate", "shared_expert_gate")
        )
        assert own.tobytes() == other.tobytes()


def test_what_cannot_be_run_is_refused_before_a_weight_is_read(tmp_path: Path) -> None:
    text = RECIPE.split("---")[1].replace("tall", "MODEL")
    with pytest.raises(UsageError, match="gate_mode hidden needs a model that runs"):
        merging.open_recipe(written(tmp_path / "r.yml", text), open_checkpoint)
    model = changed(MODEL, tmp_path / "m", config=lambda c: c.update(hidden_act="relu"))
    with pytest.raises(BadInput, match="hidden_act"):
        gates(written(tmp_path / "r.yml", text, model))
