"""What only real llama.cpp can tell; started with the peers' Python, which has llama_cpp, and nothing of ours.

One JSON object per line in, one out, each made in a child process, since the library ends its process on some files:

``{"do": "logits", "file", "tokens", "out"}``          float32 [tokens, vocabulary] to the .npy file ``out``;
                                                       ``"lora": FILE``: with that adapter
``{"do": "generate", "file", "prompt", "n"}``          greedy text, its tokens, and whether the end token came
``{"do": "quantize", "file", "out", "ftype"}``         llama_model_quantize; ``"types": {pattern: number}``, ``"prune": [blocks]``
``{"do": "tokenize", "file", "texts"}``                of each text, whose characters are bytes, four lists: without and with
                                                       control tokens read in it, each without and with those added around it
``{"do": "load", "file"}``                             whether it loads
``{"do": "evaluate", "file"}``                         whether it loads and computes three tokens; ``finite``: the logits
``{"do": "perceive", "file", "mmproj", "out"}``        float32 [n, width] to the .npy file ``out``: what the projector makes of
                                                       an image and a sound; ``finite``: that, and the logits of a model given it

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


def open_context(model: Any, size: int = 256) -> Any:
    """A context as the recorded logits were made with: float32 cache, no flash attention."""
    p = llama.llama_context_default_params()
    p.n_ctx, p.n_batch, p.n_ubatch = size, size, size
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
    context, tokens = open_context(model), case["tokens"]
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
    context = open_context(model)
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


def tokenize(case: dict[str, Any]) -> dict[str, Any]:
    p = llama.llama_model_default_params()
    p.vocab_only = True
    model = llama.llama_model_load_from_file(case["file"].encode(), p)
    if not model:
        return {"ok": False, "why": "does not load"}
    vocabulary, answers = llama.llama_model_get_vocab(model), []
    for text in case["texts"]:
        data = text.encode("latin-1")
        room = len(data) * 4 + 16
        found = (llama.llama_token * room)()
        lists = []
        for parse in (False, True):
            for add in (False, True):
                n = llama.llama_tokenize(vocabulary, data, len(data), found, room, add, parse)
                lists.append(found[:n])
        answers.append(lists)
    return {"ok": True, "tokens": answers}


def load(case: dict[str, Any]) -> dict[str, Any]:
    return {"ok": bool(open_model(case["file"]))}


def evaluate(case: dict[str, Any]) -> dict[str, Any]:
    model = open_model(case["file"])
    if not model:
        return {"ok": False, "why": "does not load"}
    context = open_context(model)
    decode(context, [1, 2, 3])
    n_vocab = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
    last = llama.llama_get_logits_ith(context, 2)  # encoders have none
    finite = not last or bool(np.isfinite(np.ctypeslib.as_array(last, (n_vocab,))).all())
    return {"ok": True, "finite": finite}


def perceive(case: dict[str, Any]) -> dict[str, Any]:
    import llama_cpp.mtmd_cpp as mtmd

    model = open_model(case["file"])
    if not model:
        return {"ok": False, "why": "the text model does not load"}
    p = mtmd.mtmd_context_params_default()
    p.use_gpu, p.warmup, p.n_threads = False, False, 2
    senses = mtmd.mtmd_init_from_file(case["mmproj"].encode(), model, p)
    if not senses:
        return {"ok": False, "why": "the projector does not load"}
    rng, width, things, found = np.random.default_rng(7), llama.llama_model_n_embd_inp(model), {}, []
    if mtmd.mtmd_support_vision(senses):
        pixels = rng.integers(0, 256, (64, 64, 3), np.uint8)
        things["image"] = mtmd.mtmd_bitmap_init(64, 64, pointer(pixels, ctypes.c_uint8))
    if mtmd.mtmd_support_audio(senses):
        sound = rng.uniform(-0.5, 0.5, mtmd.mtmd_get_audio_sample_rate(senses)).astype(np.float32)
        things["sound"] = mtmd.mtmd_bitmap_init_from_audio(len(sound), pointer(sound, ctypes.c_float))
    finite = True
    for thing in things.values():
        chunks = cut(senses, thing)
        for chunk in chunks:
            if mtmd.mtmd_input_chunk_get_type(chunk) != mtmd.MTMD_INPUT_CHUNK_TYPE_TEXT:
                if mtmd.mtmd_encode_chunk(senses, chunk):
                    return {"ok": False, "why": "mtmd_encode_chunk failed"}
                shape = mtmd.mtmd_input_chunk_get_n_tokens(chunk), width
                found.append(np.ctypeslib.as_array(mtmd.mtmd_get_output_embd(senses), shape).copy())
        finite &= decode_chunks(senses, model, chunks)
    made = np.concatenate(found)
    np.save(case["out"], made)
    return {"ok": True, "finite": bool(finite and np.isfinite(made).all()), "senses": list(things)}


def pointer(array: Any, kind: Any) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(kind))


def cut(senses: Any, thing: Any) -> list[Any]:
    """An image or a sound, and a word: in pieces that the model takes one by one."""
    import llama_cpp.mtmd_cpp as mtmd

    words = mtmd.mtmd_default_marker() + b" and"
    said = mtmd.mtmd_input_text(words, len(words), False, True)
    chunks = mtmd.mtmd_input_chunks_init()
    if mtmd.mtmd_tokenize(senses, chunks, ctypes.byref(said), (ctypes.c_void_p * 1)(thing), 1):
        raise RuntimeError("mtmd_tokenize failed")
    return [mtmd.mtmd_input_chunks_get(chunks, i) for i in range(mtmd.mtmd_input_chunks_size(chunks))]


def decode_chunks(senses: Any, model: Any, chunks: list[Any]) -> bool:
    """Whether the logits after all chunks are finite; those of text with words that a toy's vocabulary lacks are left out."""
    import llama_cpp.mtmd_cpp as mtmd

    context, at, n = open_context(model, 2048), llama.llama_pos(), ctypes.c_size_t()
    for chunk in chunks:
        if mtmd.mtmd_input_chunk_get_type(chunk) == mtmd.MTMD_INPUT_CHUNK_TYPE_TEXT:
            tokens = mtmd.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(n))
            if min(tokens[: n.value]) < 0:
                continue
        if mtmd.mtmd_helper_eval_chunk_single(senses, context, chunk, at, 0, 2048, True, ctypes.byref(at)):
            raise RuntimeError("the model does not take what the projector makes")
    n_vocab = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
    last = llama.llama_get_logits_ith(context, -1)
    return not last or bool(np.isfinite(np.ctypeslib.as_array(last, (n_vocab,))).all())


DO = {
    "logits": logits, "generate": generate, "quantize": quantize, "load": load, "evaluate": evaluate, "perceive": perceive,
    "tokenize": tokenize,
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
