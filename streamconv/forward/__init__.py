"""A model is run layer by layer: every token goes through one layer before the next is read, so RAM does not grow with the model.

Data flow
---------
Weights are row sources under GGUF's names, with GGUF's key/values: a GGUF file has both, ``models.build`` gives both for a
checkpoint (packed weights and merges included). ``open_model`` reads keys and shapes only, decides how each layer computes, and
refuses by name what is stated there and not computed here. Architectures differ in a row of a table (``architectures.py``);
whatever a key, a tensor's presence or its shape tells is read from there instead: a bias that is there is added, a norm that is
there is applied.

    tokens int32[n_chunks, n_ctx] -- embed --> hidden float32[n_chunks, n_ctx, width] -- run_layer --> ... --> hidden
                                               (a mapped file, or memory)               layer 0 ... L - 1
    hidden -- logits (or head_panels, some rows of the vocabulary at a time) --> float32[n, vocabulary]

A row of ``hidden`` is the *state* of a token: its residual (``Columns.residual``; several of them where a model has streams),
beside it what layers leave to later ones (keys and values that are shared) and, for experts, the normed input and the sum of
outputs. A layer reads one array and writes another, so a job that is stopped goes on at the last whole layer.

Chunks never see each other. *Blocks* are whole chunks of together up to 512 tokens (one chunk where chunks are longer). The
arithmetic of a block depends on nothing else, so the bytes are the same for every number of threads and every budget on one
machine:

* a weight is widened to float32 by panels of rows of fixed size, each multiplied (one ``sgemm`` of one thread) with as many blocks
  as the budget holds; further blocks widen it again, from the page cache;
* BLAS uses one thread, ours go over groups of blocks;
* experts: attention and router for all blocks first; then each expert is read once for all its tokens, in pieces of 512, and what
  experts give is added in a fixed order; then the rest of the layer.

``observe(name, block, x, expert)`` is called with the float32 input ``x[n, cols]`` of each multiplication with a weight of a layer,
once for every block of tokens (of an expert: every piece of its tokens), from several threads, in any order; ``x`` must not be
kept. A matrix for each head (``attn_k_b``, ``attn_v_b``) has the inputs of its heads side by side. Sums do not depend on threads
where those of a block are made first, and added by the numbers of blocks.
"""

from .blocks import Observe
from .model import Model, open_model
from .run import blocks_of, embed, head_panels, least_ram, logits, refuse_tokens, run_layer

__all__ = [
    "Model",
    "Observe",
    "blocks_of",
    "embed",
    "head_panels",
    "least_ram",
    "logits",
    "open_model",
    "refuse_tokens",
    "run_layer",
]
