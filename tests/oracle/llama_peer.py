"""What only real llama.cpp can tell; started with the peers' Python, which has llama_cpp, and nothing of ours.

One JSON object per line in, one out, each made in a child process, since the library ends its process on some files:

``{"do": "logits", "file", "tokens", "out"}``          float32 [tokens, vocabulary] to the .npy file ``out``;
                                                       ``"lora": FILE``: with that adapter
``{"do": "generate", "file", "prompt", "n"}``          greedy text, its tokens, and whether the end token came
``{"do": "quantize", "file", "out", "ftype"}``         llama_model_quantize; ``"types": {pattern: number}``, ``"prune": [blocks]``
``{"do": "load", "file"}``                             whether it loads
``{"do": "evaluate", "file"}``                         whether it loads and computes three tokens; ``finite``: the logits

An answer is ``{"ok": …}`` and what was asked for; a child that died, or took more than five minutes, gives ``{"ok": false}``.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from typing import Any

import llama_cpp.llama_cpp as llama
import numpy as np


def open_model(path: str) -> Any:
    p = llama.llama_model_default_params()
    p.n_gpu_layers = 0
    p.use_extra_bufts = False  # of processors with AMX: this build of ggml dies there, on its own files, too
    return llama.llama_model_load_from_file(path.encode(), p)


def open_context(model: Any, n_tokens: int) -> Any:
    """A context as the recorded logits were made with: float32 cache, no flash attention."""
    p = llama.llama_context_default_params()
    p.n_ctx, p.n_batch, p.n_ubatch = 256, 256, 256
    p.n_threads = p.n_threads_batch = 2
    p.type_k = p.type_v = llama.GGML_TYPE_F32
    p.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_DISABLED
    return llama.llama_init_from_model(model, p)


def decode(context: Any, tokens: list[int], first: int = 0) -> None:
    batch = llama.llama_batch_init(len(tokens), 0, 1)
    batch.n_tokens = len(tokens)
    for i, token in enumerate(tokens):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = token, first + i, 1, 0, 1
    if llama.llama_decode(context, batch):
        raise RuntimeError("llama_decode failed")


def logits(case: dict[str, Any]) -> dict[str, Any]:
    model = open_model(case["file"])
    context, tokens = open_context(model, len(case["tokens"])), case["tokens"]
    if case.get("lora"):
        adapters = (llama.llama_adapter_lora_p_ctypes * 1)(llama.llama_adapter_lora_init(model, case["lora"].encode()))
        if not adapters[0] or llama.llama_set_adapters_lora(context, adapters, 1, (ctypes.c_float * 1)(1.0)):
            return {"ok": False, "why": "the adapter does not load"}
    decode(context, tokens)
    n_vocab = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
    rows = [
        np.ctypeslib.as_array(llama.llama_get_logits_ith(context, i), (n_vocab,)).copy() for i in range(len(tokens))
    ]
    np.save(case["out"], np.stack(rows))
    return {"ok": True}


def generate(case: dict[str, Any]) -> dict[str, Any]:
    model = open_model(case["file"])
    vocabulary = llama.llama_model_get_vocab(model)
    n_vocab = llama.llama_vocab_n_tokens(vocabulary)
    context = open_context(model, 256)
    prompt = case["prompt"].encode()
    found = (llama.llama_token * 256)()
    n = llama.llama_tokenize(vocabulary, prompt, len(prompt), found, 256, True, False)
    new, at = list(found[:n]), 0
    made: list[int] = []
    ended = False
    while len(made) < case["n"] and not ended:
        decode(context, new, at)
        at += len(new)
        last = np.ctypeslib.as_array(llama.llama_get_logits_ith(context, len(new) - 1), (n_vocab,))
        if not np.isfinite(last).all():
            raise RuntimeError("logits are not finite")
        token = int(last.argmax())
        ended = bool(llama.llama_vocab_is_eog(vocabulary, token))
        made.append(token)
        new = [token]
    return {"ok": True, "prompt": list(found[:n]), "tokens": made, "ended": ended, "text": text(vocabulary, made)}


def text(vocabulary: Any, tokens: list[int]) -> str:
    out = b""
    for token in tokens:
        piece = ctypes.create_string_buffer(256)
        n = llama.llama_token_to_piece(vocabulary, token, piece, 256, 0, False)
        out += piece.raw[: max(n, 0)]
    return out.decode(errors="replace")


def quantize(case: dict[str, Any]) -> dict[str, Any]:
    p = llama.llama_model_quantize_default_params()
    p.ftype, p.nthread = case["ftype"], 2
    if rules := case.get("types"):
        p.tt_overrides = overrides = (llama.llama_model_tensor_override * (len(rules) + 1))()
        for rule, (pattern, number) in zip(overrides, rules.items(), strict=False):
            rule.pattern, rule.type = pattern.encode(), number
    if blocks := case.get("prune"):
        p.prune_layers = (ctypes.c_int32 * (len(blocks) + 1))(*blocks, -1)
    return {"ok": llama.llama_model_quantize(case["file"].encode(), case["out"].encode(), ctypes.byref(p)) == 0}


def load(case: dict[str, Any]) -> dict[str, Any]:
    return {"ok": bool(open_model(case["file"]))}


def evaluate(case: dict[str, Any]) -> dict[str, Any]:
    model = open_model(case["file"])
    if not model:
        return {"ok": False, "why": "does not load"}
    context = open_context(model, 3)
    decode(context, [1, 2, 3])
    n_vocab = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
    last = llama.llama_get_logits_ith(context, 2)  # encoders have none
    finite = not last or bool(np.isfinite(np.ctypeslib.as_array(last, (n_vocab,))).all())
    return {"ok": True, "finite": finite}


DO = {"logits": logits, "generate": generate, "quantize": quantize, "load": load, "evaluate": evaluate}


def in_child(case: dict[str, Any]) -> str:
    """The answer of a child, ``{"ok": false}`` when it died."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(300)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        if not os.environ.get("LLAMA_LOG"):
            os.dup2(quiet, 2)
        try:
            answer = DO[case["do"]](case)
        except Exception as e:
            answer = {"ok": False, "why": repr(e)}
        os.write(writer, json.dumps(answer).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer_text = pipe.read().decode()
    os.waitpid(child, 0)
    return answer_text or '{"ok": false}'


if __name__ == "__main__":
    for line in sys.stdin:
        print(in_child(json.loads(line)), flush=True)
