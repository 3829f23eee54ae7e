"""What only real llama.cpp can tell; started with the peers' Python, which has llama_cpp, and nothing of ours.

One JSON object per line in, one out, each made in a child process, since the library ends its process on some files:

``{"do": "logits", "file", "tokens", "out"}``          float32 [tokens, vocabulary] to the .npy file ``out``
``{"do": "generate", "file", "prompt", "n"}``          greedy text, its tokens, and whether the end token came
``{"do": "quantize", "file", "out", "ftype"}``         llama_model_quantize; ``"types": {pattern: number}``, ``"prune": [blocks]``
``{"do": "load", "file"}``                             whether it loads
``{"do": "evaluate", "file"}``                         whether it loads and gives finite numbers for three tokens
``{"do": "perceive", "file", "mmproj", "out"}``        embeddings of a small image, or of a sound where the projector has no eyes,
                                                       to the .npy file ``out``; whether the model, given them, gives finite numbers

An answer is ``{"ok": …}`` and what was asked for; a child that died, or took more than five minutes, gives ``{"ok": false}``.
"""

from __future__ import annotations

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


def open_context(model: Any, n_tokens: int, most: int = 256) -> Any:
    """A context as the recorded logits were made with: float32 cache, no flash attention."""
    p = llama.llama_context_default_params()
    p.n_ctx, p.n_batch, p.n_ubatch = most, most, most
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
    import ctypes

    out = b""
    for token in tokens:
        piece = ctypes.create_string_buffer(256)
        n = llama.llama_token_to_piece(vocabulary, token, piece, 256, 0, False)
        out += piece.raw[: max(n, 0)]
    return out.decode(errors="replace")


def quantize(case: dict[str, Any]) -> dict[str, Any]:
    import ctypes

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
    return {"ok": not last or bool(np.isfinite(np.ctypeslib.as_array(last, (n_vocab,))).all()), "logits": bool(last)}


def perceive(case: dict[str, Any]) -> dict[str, Any]:
    import ctypes

    import llama_cpp.mtmd_cpp as mtmd

    model = open_model(case["file"])
    if not model:
        return {"ok": False, "why": "the text model does not load"}
    p = mtmd.mtmd_context_params_default()
    p.use_gpu, p.warmup, p.n_threads, p.image_max_tokens = False, False, 2, case.get("most", p.image_max_tokens)
    eyes = mtmd.mtmd_init_from_file(case["mmproj"].encode(), model, p)
    if not eyes:
        return {"ok": False, "why": "the projector does not load"}
    rng, sees = np.random.default_rng(7), mtmd.mtmd_support_vision(eyes)
    if sees:
        pixels = rng.integers(0, 256, 64 * 64 * 3, np.uint8)
        thing = mtmd.mtmd_bitmap_init(64, 64, pixels.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8)))
    else:
        sound = rng.uniform(-0.5, 0.5, mtmd.mtmd_get_audio_sample_rate(eyes)).astype(np.float32)
        thing = mtmd.mtmd_bitmap_init_from_audio(len(sound), sound.ctypes.data_as(ctypes.POINTER(ctypes.c_float)))
    words = mtmd.mtmd_default_marker() + b" and"
    said = mtmd.mtmd_input_text(words, len(words), False, True)
    cut = mtmd.mtmd_input_chunks_init()
    if mtmd.mtmd_tokenize(eyes, cut, ctypes.byref(said), (ctypes.c_void_p * 1)(thing), 1):
        return {"ok": False, "why": "mtmd_tokenize failed"}
    chunks = [mtmd.mtmd_input_chunks_get(cut, i) for i in range(mtmd.mtmd_input_chunks_size(cut))]
    width, found = llama.llama_model_n_embd_inp(model), []
    for chunk in chunks:
        if mtmd.mtmd_input_chunk_get_type(chunk) == mtmd.MTMD_INPUT_CHUNK_TYPE_TEXT:
            continue
        if mtmd.mtmd_encode_chunk(eyes, chunk):
            return {"ok": False, "why": "mtmd_encode_chunk failed"}
        shape = mtmd.mtmd_input_chunk_get_n_tokens(chunk), width
        found.append(np.ctypeslib.as_array(mtmd.mtmd_get_output_embd(eyes), shape).copy())
    made = np.concatenate(found)
    np.save(case["out"], made)
    context, at = open_context(model, 2048, 2048), llama.llama_pos()
    n_vocab, n_chunks = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model)), len(chunks)
    for i, chunk in enumerate(chunks):
        if mtmd.mtmd_helper_eval_chunk_single(eyes, context, chunk, at, 0, 2048, i == n_chunks - 1, ctypes.byref(at)):
            return {"ok": False, "why": "the model does not take the embeddings", "shape": made.shape}
    last = np.ctypeslib.as_array(llama.llama_get_logits_ith(context, -1), (n_vocab,))
    return {"ok": bool(np.isfinite(made).all() and np.isfinite(last).all()), "sees": sees, "shape": made.shape}


DO = {
    "logits": logits, "generate": generate, "quantize": quantize, "load": load, "evaluate": evaluate, "perceive": perceive,
}  # fmt: skip


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
