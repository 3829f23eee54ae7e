"""What transformers makes of a folder; started with the peers' Python, which has torch, and nothing of ours.

``transformers_peer.py FOLDER VALUES`` loads the model in FOLDER, and the same architecture with the tensors of the safetensors
file VALUES put in by hand. Prints one JSON object: keys that did not fit, and whether both give the same logits, bit for bit.
"""

from __future__ import annotations

import json
import sys

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM


def main(folder: str, values: str) -> dict[str, object]:
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    other = type(model)(model.config).eval()
    other.load_state_dict(load_file(values), strict=True)
    tokens = torch.arange(24).reshape(2, 12) * 7 % model.config.vocab_size
    with torch.no_grad():
        a, b = model.eval()(tokens).logits, other(tokens).logits
    return {
        "missing": sorted(info["missing_keys"]),
        "unexpected": sorted(info["unexpected_keys"]),
        "mismatched": sorted(map(str, info["mismatched_keys"])),
        "same": bool(torch.equal(a, b)),
        "finite": bool(torch.isfinite(a).all()) and bool(a.abs().max() > 0),
    }


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
