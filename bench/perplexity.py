"""Perplexity of merges in llama.cpp: every method on two fine-tunes of one model, as a Markdown table.

    perplexity.py --peers ~/.cache/streamconv/peers --models FOLDER [--work /tmp/merges] [--type Q4_K_M]

FOLDER has checkpoints ``base``, ``code`` and ``prose`` and the texts ``eval-code.txt`` and ``eval-prose.txt``. Each line of the
table is one command ``streamconv merge recipe.yml out.gguf --type TYPE``; the file is loaded by llama.cpp, which predicts the
first 4088 tokens of each text in windows of 512, each behind a BOS token.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

MEASURE = """
import json, math, sys
import numpy as np
import llama_cpp
model = llama_cpp.Llama(sys.argv[1], n_ctx=512, n_batch=512, n_threads=1, logits_all=True, verbose=False)
found = {}
for path in sys.argv[2:]:
    tokens = model.tokenize(open(path, "rb").read(), add_bos=False)[: 8 * 511]
    total = n = 0
    for at in range(0, len(tokens), 511):
        window = [model.token_bos(), *tokens[at : at + 511]]
        model.reset()
        model.eval(window)
        logits = np.array(model.scores[: len(window) - 1], np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        logp = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        total -= logp[np.arange(len(window) - 1), window[1:]].sum()
        n += len(window) - 1
    found[path] = math.exp(total / n)
answer = model.create_chat_completion([{"role": "user", "content": "def main():"}], max_tokens=64, temperature=0)
found["answer"] = answer["choices"][0]["message"]["content"]
found["reason"] = answer["choices"][0]["finish_reason"]
print(json.dumps(found))
"""

PAIR = "models: [{model: code}, {model: prose}]\n"
BESIDE_BASE = "base_model: base\n" + PAIR
WEIGHTED = "base_model: base\nmodels:\n- {model: code, parameters: %s}\n- {model: prose, parameters: %s}\n"


def weighted(parameters: str) -> str:
    return WEIGHTED % (parameters, parameters)


#: method -> what follows ``merge_method`` in its recipe
RECIPES = {
    "linear": PAIR + "parameters: {weight: 1}\n",
    "slerp": "base_model: code\nmodels: [{model: code}, {model: prose}]\nparameters: {t: 0.5}\n",
    "nuslerp": PAIR + "parameters: {weight: 1}\n",
    "multislerp": PAIR + "parameters: {weight: 1}\n",
    "karcher": PAIR,
    "task_arithmetic": weighted("{weight: 0.6}"),
    "ties": weighted("{weight: 1, density: 0.6}") + "parameters: {lambda: 0.6}\n",
    "dare_linear": weighted("{weight: 0.6, density: 0.7}"),
    "dare_ties": weighted("{weight: 0.6, density: 0.7}"),
    "della": weighted("{weight: 1, density: 0.7, epsilon: 0.1}") + "parameters: {lambda: 0.6}\n",
    "della_linear": weighted("{weight: 0.6, density: 0.7, epsilon: 0.1}"),
    "breadcrumbs": weighted("{weight: 0.6, density: 0.9, gamma: 0.01}"),
    "breadcrumbs_ties": weighted("{weight: 0.6, density: 0.9, gamma: 0.01}"),
    "model_stock": BESIDE_BASE,
    "sce": BESIDE_BASE + "parameters: {select_topk: 0.8}\n",
    "ram": BESIDE_BASE,
    "ramplus_tl": BESIDE_BASE,
    "nearswap": "base_model: code\nmodels: [{model: prose}]\nparameters: {t: 0.005}\n",
    "arcee_fusion": "base_model: code\nmodels: [{model: prose}]\n",
}


def measure(python: Path, file: Path, models: Path) -> dict[str, str]:
    """Perplexities and an answer of one GGUF file."""
    texts = [str(models / f"eval-{kind}.txt") for kind in ("code", "prose")]
    done = subprocess.run(
        [str(python), "-c", MEASURE, str(file), *texts], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True
    )
    found = json.loads(done.stdout)
    return {"code": found[texts[0]], "prose": found[texts[1]], "answer": found["answer"], "reason": found["reason"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("/tmp/streamconv-merges"))
    parser.add_argument("--type", default="Q8_0")
    parser.add_argument("--methods", default=",".join(RECIPES))
    a = parser.parse_args()
    a.work.mkdir(parents=True, exist_ok=True)
    python = a.peers / "bin" / "python"
    print(f"| {a.type} | code | prose | sum |\n|---|---|---|---|")
    for name in (*("base", "code", "prose"), *a.methods.split(",")):
        source, out = a.models / name, a.work / f"{name}-{a.type}.gguf"
        command = ["convert"]
        if name in RECIPES:
            source, command = a.work / f"{name}.yml", ["merge"]
            text = f"merge_method: {name}\n{RECIPES[name]}dtype: bfloat16\n"
            for model in ("base", "code", "prose"):
                text = text.replace(f"model: {model}", f"model: {json.dumps(str(a.models / model))}")
            source.write_text(text)
        command = [*command, str(source), str(out), "--type", a.type, "--quiet", "--force"]
        subprocess.run([sys.executable, "-m", "streamconv", *command], check=True)
        found = measure(python, out, a.models)
        code, prose = float(found["code"]), float(found["prose"])
        shown = f"`{name}`" if name in RECIPES else name
        print(f"| {shown} | {code:.2f} | {prose:.2f} | {code + prose:.2f} |", flush=True)


if __name__ == "__main__":
    main()
