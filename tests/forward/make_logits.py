"""Write the keys and shapes of random models and the logits that llama.cpp gives for them.

make_logits.py PEERS_PYTHON FILE.gguf …      files whose keys and shapes are taken, values are not; other models stay as they are
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from random_models import DATA, metadata_of, values

from streamconv.sources import read_gguf

#: of each model: tokens asked, and how many of the vocabulary are kept
TOKENS, KEPT = 24, 24
_ASK = """
import sys, numpy as np
from llama_cpp import Llama
sizes = {"n_ctx": 256, "n_batch": 256, "n_ubatch": 256, "n_threads": 1}
m = Llama(sys.argv[1], **sizes, logits_all=True, type_k=0, type_v=0, flash_attn=False, verbose=False)
ids = [int(i) for i in sys.argv[3].split(",")]
m.eval(ids)
np.save(sys.argv[2], np.array(m.scores[:len(ids)]))
"""


def ids_of(n_vocab: int) -> list[int]:
    """Tokens of all parts of the vocabulary."""
    return [(i * 7919 + 3) % (n_vocab - 10) for i in range(TOKENS)]


def main() -> None:
    from gguf import GGUFWriter

    peers, *paths = sys.argv[1:]
    stated = json.loads((DATA / "models.json").read_text())
    with np.load(DATA / "logits.npz") as recorded:
        found = dict(recorded)
    for path in map(Path, paths):
        file = read_gguf(path)
        arch = file.metadata.get("general.architecture")
        keys = {}
        for key, v in file.metadata.items():
            if key == "phi3.attention.sliding_window":
                continue  # llama.cpp looks at it and leaves it out
            if key.startswith((f"{arch}.", "xielu.")) or key == "general.architecture":
                window = key.endswith("attention.sliding_window")
                listed = [x.item() if hasattr(x, "item") else x for x in v.value] if v.type == "ARRAY" else v.value
                if key.endswith("indexer.top_k"):
                    listed = 64  # more than tokens asked
                keys[key] = [v.type, min(v.value, 8) if window else listed, *([v.elem] if v.elem else [])]
        tensors = {n: list(t.shape) for n, t in file.tensors.items()}
        with tempfile.TemporaryDirectory() as folder:
            target, answer = Path(folder) / "m.gguf", Path(folder) / "a.npy"
            writer = GGUFWriter(target, arch)
            everything = dict(file.metadata.values) | metadata_of(keys).values
            for key, v in everything.items():
                if key not in ("general.architecture", "general.alignment"):
                    from gguf import GGUFValueType

                    sub = GGUFValueType[v.elem] if v.elem else None
                    writer.add_key_value(key, list(v.value) if v.elem else v.value, GGUFValueType[v.type], sub)
            for n, shape in tensors.items():
                writer.add_tensor(n, np.ascontiguousarray(values(n, tuple(shape))))
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            writer.close()
            ids = ids_of(tensors["token_embd.weight"][0])
            done = subprocess.run(
                [peers, "-c", _ASK, str(target), str(answer), ",".join(map(str, ids))], capture_output=True
            )
            if done.returncode:
                print(f"{path.stem}: not recorded", file=sys.stderr)
                continue
            logits = np.load(answer)
        stated[path.stem] = {"keys": keys, "tensors": tensors}
        found[path.stem] = logits[:, :KEPT].astype(np.float32)
    DATA.mkdir(exist_ok=True)
    (DATA / "models.json").write_text(json.dumps(stated, separators=(",", ":")))
    np.savez_compressed(DATA / "logits.npz", **found)


if __name__ == "__main__":
    main()
