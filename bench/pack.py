"""Packed checkpoints: size, speed of packing and reading, and a conversion from the pack against one from plain files.

    pack.py --work /tmp/bench [--layers 2] [--peers PYTHON] [--convert q8_0 q4_k_m] [--slow-disk 100MB] [--rounds 1]
    pack.py --work /tmp/bench --model FOLDER --convert q8_0 --slow-disk 100MB      that model, and conversions only

Sizes and speeds are of bf16 and f16: the bundled model, which is trained, and a generated 70B shape (``checkpoint.py``), whose rows
are given scales of their own (log-normal, 0.25) so that its exponents have the entropy of a trained model's; both entropies are
printed. Speeds are bytes of the plain file per second of processor time of one core, as other jobs may run here.
``--peers`` is a Python that has zipnn; plain zstd is measured at levels 1 and 3 on frames of 4 MiB.
``--convert`` converts from the plain files and from the pack in turns, neither of them in the page cache; with ``--slow-disk``
again, from a disk that gives so many bytes a second (``slow_disk.py``; what is written is not slowed).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import checkpoint
import numpy as np
from measure import Run, place, run
from slow_disk import slow_disk

from streamconv.engine.budget import parse_size

ROOT = Path(__file__).resolve().parent.parent
STREAMCONV = [sys.executable, "-m", "streamconv"]
FRAME_BYTES = 4 << 20
#: of a file, looked at by the peers
SAMPLE_BYTES = 512 << 20
#: run by the Python of the peers: prints size and seconds of packing and unpacking
ZIPNN = """
import json, sys, time
from zipnn import ZipNN
data = open(sys.argv[1], "rb").read(int(sys.argv[3]))
z = ZipNN(bytearray_dtype=sys.argv[2], input_format="byte", threads=1)
at = time.process_time(); packed = z.compress(bytearray(data)); packing = time.process_time() - at
at = time.process_time(); same = z.decompress(packed) == data; reading = time.process_time() - at
assert same
print(json.dumps([len(packed) / len(data), len(data) / packing, len(data) / reading]))
"""


def emit(what: str, **found: object) -> None:
    print(json.dumps({"bench": "pack", **place(), "what": what, **found}), flush=True)


def generate(folder: Path, dtype: str, layers: int) -> Path:
    """The shape with rows of scales of their own, in one file."""
    file = folder / "model.safetensors"
    if file.exists():
        return file
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    shapes = checkpoint.tensors_of("70b", layers)
    header, at = {}, 0
    for name, dims in shapes:
        n_bytes = 2 * int(np.prod(dims))
        header[name] = {"dtype": dtype, "shape": list(dims), "data_offsets": [at, at + n_bytes]}
        at += n_bytes
    text = json.dumps(header).encode()
    pool = (rng.standard_t(8, size=32 << 20) * 0.02).astype(np.float32)
    with open(file, "wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for _, dims in shapes:
            columns = dims[-1]
            rows = 1 if len(dims) == 1 else dims[0]
            for start in range(0, rows, 1024):
                n = min(1024, rows - start)
                scales = np.exp(rng.standard_normal((n, 1)) * 0.25).astype(np.float32)
                first = int(rng.integers(len(pool) - n * columns))
                values = pool[first : first + n * columns].reshape(n, columns) * scales
                words = checkpoint.bf16(values) if dtype == "BF16" else values.astype(np.float16).view(np.uint16)
                out.write(words.tobytes())
    checkpoint.write_side_files(folder, "70b", layers, {})
    return file


def as_f16(source: Path, folder: Path) -> Path:
    """The bundled model in float16."""
    if not folder.exists():
        subprocess.run([*STREAMCONV, "convert", source, folder, "--type", "f16", "--quiet"], check=True)
    return folder / "model.safetensors"


def entropy(file: Path, dtype: str) -> float:
    """Bits of the exponents of a sample, where 8 (5 in float16) would be all."""
    words = np.fromfile(file, np.uint16, 8 << 20, offset=int.from_bytes(file.open("rb").read(8), "little") + 8)
    exponents = words >> 7 & 0xFF if dtype == "BF16" else words >> 10 & 0x1F
    share = np.bincount(exponents)[np.bincount(exponents) > 0] / len(exponents)
    return float(-(share * np.log2(share)).sum())


def seconds(work: Callable[[], object]) -> float:
    before = time.process_time()
    work()
    return time.process_time() - before


def plain_zstd(file: Path, level: int) -> dict[str, object]:
    import zstandard

    data = np.fromfile(file, np.uint8, SAMPLE_BYTES)
    parts = [data[at : at + FRAME_BYTES].data for at in range(0, len(data), FRAME_BYTES)]
    packer, packed = zstandard.ZstdCompressor(level=level, write_checksum=True), list[bytes]()
    packing = seconds(lambda: packed.extend(map(packer.compress, parts)))
    reader = zstandard.ZstdDecompressor()
    reading = seconds(lambda: [reader.decompress(frame) for frame in packed])
    return speeds(sum(map(len, packed)) / len(data), len(data) / packing, len(data) / reading)


def speeds(ratio: float, packing: float, reading: float) -> dict[str, object]:
    return {"ratio": round(ratio, 4), "pack_mb_s": round(packing / 1e6), "read_mb_s": round(reading / 1e6)}


def ours(file: Path, work: Path) -> dict[str, object]:
    """Packing by the command, and reading all tensors by rows, one core each."""
    from streamconv.sources import FrameCache, open_checkpoint
    from streamconv.sources.local_files import open_file

    out, made = work / "pack", pack(file.parent, work)
    packed = out / f"{file.name}.scpack"
    opened = open_checkpoint(out, cache=FrameCache(64 << 20))
    first = next(iter(opened.tensors.values()))
    first.native(first.dtype, 0, 1)  # the kernel is compiled
    total = 0

    def read() -> None:
        nonlocal total
        for rows in opened.tensors.values():
            step = max(1, (128 << 10) // max(1, 2 * (rows.shape[-1] if rows.shape else 1)))
            n_rows = int(np.prod(rows.shape[:-1]))
            chunk = step * 128  # 16 MiB, as a conversion gives them back
            for start in range(0, n_rows, step):
                stop = min(start + step, n_rows)
                found = rows.native(rows.dtype, start, stop)
                total += 0 if found is None else found.nbytes
                if stop % chunk == 0 or stop == n_rows:
                    rows.release((stop - 1) // chunk * chunk, stop)

    rounds = max(1, SAMPLE_BYTES // file.stat().st_size)
    by_rows = seconds(lambda: [read() for _ in range(rounds)])
    whole = open_file(packed, cache=FrameCache(64 << 20))
    buffer = np.empty(16 << 20, np.uint8)

    def read_whole() -> None:
        for at in range(0, whole.size, len(buffer)):
            n = min(len(buffer), whole.size - at)
            whole.read_into(at, buffer[:n])
            whole.release(at, n)

    ranges = seconds(lambda: [read_whole() for _ in range(rounds)]) / rounds
    found = speeds(packed.stat().st_size / file.stat().st_size, file.stat().st_size / made.cpu_s, total / by_rows)
    return {**found, "read_ranges_mb_s": round(whole.size / ranges / 1e6), "pack_rss_anon_mib": made.rss_anon_mib}


def conversions(source: Path, work: Path, type_: str, prefix: list[str], told: str) -> None:
    """From the plain files and from the pack, each with nothing of these in the page cache."""
    for what, place_ in (("plain", source), ("pack", work / "pack")):
        out = work / f"{what}.gguf"
        for left in (out, out.with_name(f".{out.name}.streamconv")):
            left.unlink(missing_ok=True)
        command = [*STREAMCONV, "convert", str(place_), str(out), "--type", type_, "--no-reuse"]
        n_bytes = sum(forget(path) for path in place_.iterdir() if path.is_file())
        emit(f"convert to {type_} from {what}{told}", input_bytes=n_bytes, **run([*prefix, *command]).as_dict())
        out.unlink()


def forget(path: Path) -> int:
    """Take a file out of the page cache, and leave there what starting a program takes; its bytes."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fdatasync(fd)  # what is not written yet would stay
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        return os.fstat(fd).st_size
    finally:
        os.close(fd)


def pack(source: Path, work: Path) -> Run:
    """The folder ``source`` packed anew, by one thread."""
    out = work / "pack"
    shutil.rmtree(out, ignore_errors=True)
    out.with_name(".pack.streamconv").unlink(missing_ok=True)
    return run([*STREAMCONV, "pack", str(source), str(out), "--threads", "1"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("/tmp/streamconv-bench"))
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--convert", nargs="*", default=[])
    parser.add_argument("--slow-disk", metavar="BYTES")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument(
        "--model", type=Path, help="what is converted (default: the generated one), and nothing else is measured"
    )
    a = parser.parse_args()
    a.work.mkdir(parents=True, exist_ok=True)
    if a.model:
        source = a.model
        pack(source, a.work)
    else:
        source = generate(a.work / f"bf16-{a.layers}", "BF16", a.layers).parent
        sizes_and_speeds(source / "model.safetensors", a.work, a.peers)
    for type_ in a.convert:
        for _ in range(a.rounds):
            conversions(source, a.work, type_, [], "")
            if a.slow_disk:
                with slow_disk(a.work, parse_size(a.slow_disk)) as prefix:
                    conversions(source, a.work, type_, prefix, f", disk of {a.slow_disk}/s")


def sizes_and_speeds(source: Path, work: Path, peers: Path | None) -> None:
    """Of all kinds; the pack of ``source`` is left."""
    bundled = ROOT / "examples" / "tiny-gemma3"
    cases = {
        "bundled bf16": (bundled / "model.safetensors", "BF16"),
        "bundled f16": (as_f16(bundled, work / "bundled-f16"), "F16"),
        "generated f16": (generate(work / "f16", "F16", 0), "F16"),
        "generated bf16": (source, "BF16"),
    }
    for name, (file, dtype) in cases.items():
        emit(name, bytes=file.stat().st_size, exponent_bits=round(entropy(file, dtype), 3))
        emit(f"{name}: streamconv pack", **ours(file, work))
        for level in (1, 3):
            emit(f"{name}: plain zstd, level {level}", **plain_zstd(file, level))
        if peers:
            kind = "bfloat16" if dtype == "BF16" else "float16"
            done = subprocess.run(
                [peers, "-c", ZIPNN, file, kind, str(SAMPLE_BYTES)], check=True, capture_output=True, text=True
            )
            emit(f"{name}: zipnn", **speeds(*json.loads(done.stdout.splitlines()[-1])))


if __name__ == "__main__":
    main()
