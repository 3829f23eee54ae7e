"""Build ``run_tokens`` from gemma.cpp's public source, for the oracle tests: about 6 minutes on one core, once.

    python tests/oracle/gemma_cpp/build.py [--sources FOLDER]

The sources are folders ``gemma.cpp``, ``highway`` and ``sentencepiece`` in FOLDER, at the commits below; without it they are cloned
with git. Needs g++ of C++17 and a processor with AVX2, the instruction set that all is built for, NUQ included. The program is put
beside the other peers. cmake is not needed, and neither are the parts of sentencepiece that train.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

#: repository of google -> commit; the newest state of gemma.cpp that was looked at, and what its CMakeLists.txt names
COMMITS = {
    "gemma.cpp": "3ed403e",
    "highway": "2a16a50ff61071bb25ddef0ce35d92b0e2b9c579",
    "sentencepiece": "53de76561cfc149d3c01037f0595669ad32a5e7c",
}
FLAGS = [
    "-O2", "-std=c++17", "-w", "-pthread", "-mavx2", "-mfma", "-mf16c", "-mbmi", "-mbmi2", "-mlzcnt", "-mpclmul", "-maes",
    "-DHWY_COMPILE_ONLY_STATIC", "-DGEMMA_ENABLE_NUQ=1", "-DHAVE_PTHREAD=1", "-D_USE_INTERNAL_STRING_VIEW",
]  # fmt: skip
#: patterns below each repository; what ends in one of ``LEFT_OUT`` is not needed
FILES = {
    "gemma.cpp": (
        "compression/compress.cc gemma/*.cc io/blob_store.cc io/fields.cc io/io.cc ops/matmul*.cc paligemma/image.cc util/*.cc"
    ),
    "highway": (
        "hwy/abort.cc hwy/aligned_allocator.cc hwy/nanobenchmark.cc hwy/per_target.cc hwy/perf_counters.cc hwy/print.cc"
        " hwy/profiler.cc hwy/targets.cc hwy/timer.cc hwy/contrib/thread_pool/*.cc hwy/contrib/sort/vqsort.cc"
        " hwy/contrib/sort/vqsort_f64*.cc"
    ),
    "sentencepiece": (
        "third_party/protobuf-lite/*.cc third_party/absl/flags/flag.cc src/builtin_pb/*.cc src/bpe_model.cc src/char_model.cc"
        " src/error.cc src/filesystem.cc src/model_factory.cc src/model_interface.cc src/normalizer.cc"
        " src/sentencepiece_processor.cc src/unigram_model.cc src/util.cc src/word_model.cc"
    ),
}
LEFT_OUT = ("_test.cc", "api_server.cc", "api_client.cc", "run.cc", "bench_matmul.cc")
INCLUDED = (
    "gemma.cpp", "highway", "sentencepiece", "sentencepiece/src", "sentencepiece/src/builtin_pb", "sentencepiece/third_party",
    "sentencepiece/third_party/protobuf-lite",
)  # fmt: skip


def program() -> Path:
    """Where the program is, once it is built."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "streamconv"
    return Path(os.environ.get("STREAMCONV_PEERS", cache / "peers")) / "gemma.cpp" / "run_tokens"


def fetched(folder: Path) -> Path:
    """The sources, cloned into ``folder``."""
    for name, commit in COMMITS.items():
        subprocess.run(["git", "clone", "-q", f"https://github.com/google/{name}", str(folder / name)], check=True)
        subprocess.run(["git", "-C", str(folder / name), "checkout", "-q", commit], check=True)
    return folder


def build(sources: Path, work: Path, out: Path) -> None:
    """Compile and link; every error of the compiler is shown."""
    names = {"VERSION": "0", "PACKAGE": "sentencepiece", "PACKAGE_STRING": "sentencepiece"}
    (work / "config.h").write_text("".join(f'#define {name} "{text}"\n' for name, text in names.items()))
    include = [f"-I{sources / name}" for name in INCLUDED] + [f"-I{work}"]
    files = [Path(__file__).with_name("run_tokens.cc")]
    for name, patterns in FILES.items():
        files += [path for pattern in patterns.split() for path in sorted((sources / name).glob(pattern))]
    files = [path for path in files if not path.name.endswith(LEFT_OUT)]

    def compiled(numbered: tuple[int, Path]) -> str:
        number, path = numbered
        target = work / f"{number}-{path.stem}.o"
        subprocess.run(["g++", *FLAGS, *include, "-c", str(path), "-o", str(target)], check=True)
        return str(target)

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        objects = list(pool.map(compiled, enumerate(files)))
    made = work / out.name
    subprocess.run(["g++", "-pthread", *objects, "-o", str(made)], check=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(made, out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", type=Path, help="folder with the three repositories")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        build(a.sources or fetched(work), work, program())
    print(program(), file=sys.stderr)


if __name__ == "__main__":
    main()
