"""What bitsandbytes makes of weights; started with the peers' Python, which has it, and nothing of ours.

``bitsandbytes_peer.py FROM PACKED PLAIN NAME…`` writes two copies of the safetensors file FROM: with the weights called NAME as
double-quantized NF4, as a saved model has them, and with what the library decodes these to.
"""

from __future__ import annotations

import sys

import torch
from bitsandbytes import functional
from safetensors.torch import load_file, save_file


def main(source: str, packed: str, plain: str, *names: str) -> None:
    found = load_file(source)
    stored, decoded = dict(found), dict(found)
    for name in names:
        codes, state = functional.quantize_4bit(found[name], quant_type="nf4", compress_statistics=True)
        stored[name] = codes
        stored |= {f"{name}.{part}": value.contiguous() for part, value in state.as_dict(packed=True).items()}
        # Its kernel for processors takes a block that goes on in the next row for another one: all in one row it is right.
        shape, state.shape = state.shape, torch.Size([1, state.shape.numel()])
        decoded[name] = functional.dequantize_4bit(codes, state).reshape(shape)
    save_file(stored, packed)
    save_file(decoded, plain)


if __name__ == "__main__":
    main(*sys.argv[1:])
