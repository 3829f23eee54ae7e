"""Every option of the command line, once: what it is called, what it sets, which commands have it, on what it has an effect.

The parser, ``docs/cli.md``, the attributes of ``conversion.Options`` and the refusal of what would have no effect follow from this
table. A target may add options of its own (``Target.flags``). Nothing but the parser is imported here, so ``--help`` answers at
once.
"""

# Annotations are no texts here: NamedTuple would compile each when the program starts.
import argparse
import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

#: the commands that plan a conversion, those that run a plan, and both
JOBS = ("convert", "merge", "plan")
RUNS = ("convert", "merge", "extract-lora")
PLANS = (*JOBS, "extract-lora")
EVALUATIONS = ("imatrix", "compare", "perplexity", "mix")
PACKING = ("pack", "unpack")
#: those that write GGUF files out of stored tensors
COPIES = ("split", "join", "edit")
ALL = (
    *PLANS,
    *COPIES,
    *PACKING,
    "hash",
    "fetch",
    "status",
    "verify",
    "inspect",
    "check",
    "families",
    "bench",
    *EVALUATIONS,
)


class Flag(NamedTuple):
    """One option of the command line.

    Attributes
    ----------
    names : its spellings with spaces between them; the first is for messages
    help : what it does, in a few words
    metavar : what stands for its value, or, with a space between them, for its two values; empty for a switch
    field : what it sets: a field of ``Options``, or the name of a target's own; empty: its command knows it by its name
    kind : how its value is read, see ``KINDS``; empty: as it is
    choices : the values that there are
    many : it may be repeated
    default : of one without a field
    commands : those that have it
    group : its heading in the help
    special : only targets whose ``options`` have the field take it
    source : the only source on which it has an effect: ``gguf``, ``checkpoint`` (what is not), ``recipe`` or ``hub``
    needs : fields, with spaces between them, without any of which it has no effect
    alternative : options with the same word exclude each other
    """

    names: str
    help: str
    metavar: str = ""
    field: str = ""
    kind: str = ""
    choices: tuple[str, ...] = ()
    many: bool = False
    default: Any = None
    commands: tuple[str, ...] = JOBS
    group: str = ""
    special: bool = False
    source: str = ""
    needs: str = ""
    alternative: str = ""

    @property
    def name(self) -> str:
        """Its first spelling."""
        return self.names.split()[0]

    @property
    def dest(self) -> str:
        """What parsed arguments call it."""
        return self.name.lstrip("-").replace("-", "_")

    def keywords(self) -> dict[str, Any]:
        """What ``add_argument`` is told of it; an option with a field that is not given leaves no trace."""
        told: dict[str, Any] = {"help": self.help}
        if self.metavar or self.choices:
            told |= {"metavar": self.metavar or None, "type": KINDS[self.kind], "choices": self.choices or None}
            told["action"] = "append" if self.many else "store"
            if " " in self.metavar:
                told |= {"metavar": tuple(self.metavar.split()), "nargs": 2}
        else:
            told["action"] = argparse.BooleanOptionalAction if self.default else "store_true"
        if self.field:
            told["default"] = argparse.SUPPRESS
        elif self.default is not None:
            told["default"] = self.default
        return told


def _seconds(text: str) -> float:
    """Seconds of ``90``, ``90s``, ``15m``, ``2h`` or ``1h30m``.

    >>> _seconds("2h"), _seconds("1h30m"), _seconds("90")
    (7200.0, 5400.0, 90.0)
    """
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?", text.strip().lower())
    if not match or not any(match.groups()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration; write 90s, 15m or 2h")
    hours, minutes, seconds = (float(g or 0) for g in match.groups())
    return hours * 3600 + minutes * 60 + seconds


def _size(text: str) -> int:
    from .engine.budget import parse_size

    return parse_size(text)


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def _layers(text: str) -> tuple[int, ...]:
    try:
        return tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of block numbers such as 3,4,5") from None


def _path(text: str) -> Any:
    from pathlib import Path

    return Path(text)


#: how the values of options are read
KINDS: dict[str, Callable[[str], Any]] = {
    "": str, "integer": int, "number": float, "positive": _positive, "size": _size, "seconds": _seconds, "layers": _layers,
    "path": _path,
}  # fmt: skip

_TYPES: dict[str, Any] = {"group": "types", "special": True, "commands": (*JOBS, "mix")}
_WHOLE: dict[str, Any] = {**_TYPES, "commands": JOBS}
_SIZE: dict[str, Any] = {"group": "types that fit a size", "commands": ("convert", "mix")}
_MODEL: dict[str, Any] = {"group": "model", "special": True}
_FURTHER: dict[str, Any] = {**_MODEL, "source": "checkpoint", "alternative": "what predicts further tokens"}
_RECIPE: dict[str, Any] = {"group": "merge recipes", "source": "recipe"}
_ADAPTER: dict[str, Any] = {"group": "adapter", "commands": ("extract-lora",)}
_TEXT: dict[str, Any] = {"group": "text", "commands": EVALUATIONS}
_MATRIX: dict[str, Any] = {"group": "importance matrix", "commands": ("imatrix",)}
_RUNNING: dict[str, Any] = {"group": "running", "commands": (*PLANS, *COPIES)}
_CLUSTER: dict[str, Any] = {"group": "running", "commands": PLANS}
_RUN: dict[str, Any] = {"group": "running", "commands": (*PLANS, *COPIES, *PACKING, *EVALUATIONS)}
_SPLIT: dict[str, Any] = {**_MODEL, "commands": (*JOBS, "split")}
_EDIT: dict[str, Any] = {"group": "keys", "commands": ("edit",)}
_HASH: dict[str, Any] = {"group": "digests", "commands": ("hash",)}
_HUB: dict[str, Any] = {"group": "models on the hub", "commands": (*PLANS, "fetch", "inspect", *EVALUATIONS)}
_KEPT: dict[str, Any] = {"commands": PLANS, "alternative": "what is fetched"}
_FETCH: dict[str, Any] = {"group": "running", "commands": ("fetch",)}
_RESUMING: dict[str, Any] = {"group": "resuming", "commands": (*RUNS, *COPIES, *PACKING, "imatrix", "mix")}
_WORK: dict[str, Any] = {"group": "resuming", "commands": ("compare", "perplexity")}
_REPORTING: dict[str, Any] = {"group": "resuming", "commands": RUNS}
_REUSE: dict[str, Any] = {"group": "running", "commands": PLANS, "alternative": "reuse"}
_STOP = "stop cleanly after 90s, 15m, 2h …; exit code 75"
_NICE = "lowest CPU and I/O priority"

#: in the order of the help
FLAGS = (
    Flag("--json", "JSON on stdout instead of text", commands=ALL),
    Flag("--quiet", "print errors only", commands=ALL),
    Flag("--debug", "show tracebacks", commands=ALL),
    Flag("--store", "all models fetched from the hub, compared with their digests", commands=("verify",)),
    Flag(
        "--stop-after", "with --store: stop after 90s, 15m, 2h …; exit code 75", "TIME", kind="seconds", commands=("verify",)
    ),
    Flag("--type", "tensor types such as Q4_K,IQ3_S; default: the usual ones", "TYPES", many=True, commands=("bench",)),
    Flag("--no-scan", "skip looking for NaN and Inf in the data", commands=("check",)),
    Flag(
        "--type", "file type such as Q4_K_M or auto (default); A,B with OUT 'x-{type}.gguf'", "TYPE", "type", group="types",
    ),
    Flag(
        "--type", "file type that the list is used with, such as Q4_K_M or auto (default)", "TYPE", "type", group="types",
        commands=("mix",),
    ),
    Flag("--tensor-type", "type of tensors whose name matches", "REGEX=TYPE", "tensor_types", many=True, **_TYPES),
    Flag("--tensor-type-file", "REGEX=TYPE words, one rule each", "FILE", "tensor_type_file", "path", **_TYPES),
    Flag("--output-tensor-type", "type of output.weight", "TYPE", "output_tensor_type", **_TYPES),
    Flag("--token-embedding-type", "type of token_embd.weight", "TYPE", "token_embedding_type", **_TYPES),
    Flag("--leave-output-tensor", "keep output.weight as it is", field="leave_output_tensor", **_TYPES),
    Flag("--pure", "the same type for every matrix", field="pure", **_WHOLE),
    Flag("--imatrix", "importance matrix; may be repeated", "FILE", "imatrix", "path", many=True, **_TYPES),
    Flag(
        "--include-weights", "use only these imatrix entries", "NAME", "include_weights", many=True, needs="imatrix", **_TYPES
    ),
    Flag("--exclude-weights", "ignore these imatrix entries", "NAME", "exclude_weights", many=True, needs="imatrix", **_TYPES),
    Flag("--allow-requantize", "requantize tensors that are already quantized", field="allow_requantize", **_TYPES),
    Flag("--copy", "keep every tensor's type (GGUF input)", field="copy", source="gguf", **_WHOLE),
    Flag("--prune-layers", "remove blocks (GGUF input)", "N,N", "prune_layers", "layers", source="gguf", **_WHOLE),
    Flag("--override-kv", "set a key (GGUF input)", "KEY=TYPE:VALUE", "override_kv", many=True, source="gguf", **_TYPES),
    Flag("--compat", "reproduce the defects of ggml's quantizers too", field="compat", choices=("ggml",), **_TYPES),
    Flag(
        "--pre", "BPE pre-tokenizer, when it is not recognised", "NAME", "pre", source="checkpoint",
        **{**_MODEL, "commands": (*JOBS, *EVALUATIONS)},
    ),
    Flag("--model-name", "general.name of the output", "NAME", "model_name", source="checkpoint", **_MODEL),
    Flag("--metadata", "name, author, licence, … from a JSON object of general.… keys", "FILE", "metadata", "path",
         source="checkpoint", **_MODEL),
    Flag("--fuse-qkv", "query, key and value in one tensor", field="fuse_qkv", source="checkpoint", **_MODEL),
    Flag(
        "--fuse-gate-up-exps", "gate and up of the experts in one tensor", field="fuse_gate_up_exps", source="checkpoint",
        **_MODEL,
    ),
    Flag(
        "--fp8-as-q8", "Q8_0 for what is stored in FP8, in files of F32, F16 or BF16", field="fp8_as_q8",
        source="checkpoint", **_MODEL,
    ),
    Flag(
        "--sentence-transformers-dense-modules", "the dense modules beside an embedding model too", field="dense_modules",
        source="checkpoint", **_MODEL,
    ),
    Flag("--vocab-only", "metadata and tokenizer, no tensors", field="vocab_only", source="checkpoint", **_MODEL),
    Flag("--mmproj", "the projector instead of the text model", field="mmproj", source="checkpoint", **_MODEL),
    Flag(
        "--mmproj-type", "type of the projector where OUT is 'x-{part}.gguf', which stands for both (default F16)", "TYPE",
        "mmproj_type", source="checkpoint", **_MODEL,
    ),
    Flag(
        "--mistral-format", "read Mistral's own layout: params.json, consolidated*.safetensors and tekken.json",
        field="mistral_format", source="checkpoint", **{**_MODEL, "commands": (*JOBS, "fetch")},
    ),
    Flag("--mtp", "only what predicts further tokens, for a draft model of its own", field="mtp", **_FURTHER),
    Flag("--no-mtp --no-nextn", "leave out what predicts further tokens", field="no_mtp", **_FURTHER),
    Flag("--dspark", "only the DSpark draft model of a DeepSeek V4; needs --target-model-dir", field="dspark", **_FURTHER),
    Flag(
        "--target-model-dir", "of a draft model: the model it helps, whose tokenizer it has", "FOLDER", "target_model",
        source="checkpoint", **_MODEL,
    ),
    Flag(
        "--base", "of a LoRA adapter: the model that it was trained on; its configuration is read, no weights", "MODEL", "base",
        **_MODEL,
    ),
    Flag(
        "--lora", "apply a LoRA adapter, GGUF or of PEFT, times SCALE (default 1); may be repeated", "FILE[:SCALE]", "lora",
        many=True, **_MODEL,
    ),
    Flag("--allow-nonfinite", "convert NaN and Inf instead of refusing them", field="allow_nonfinite", group="model"),
    Flag("--split-max-size", "write shards of at most this size, such as 4G", "SIZE", "split_max_bytes", "size", **_SPLIT),
    Flag("--split-max-tensors", "write shards of at most N tensors", "N", "split_max_tensors", "positive", **_SPLIT),
    Flag(
        "--no-tensor-first-split", "no tensors in the first shard", field="no_tensor_first_split",
        needs="split_max_bytes split_max_tensors", **_SPLIT,
    ),
    Flag("--keep-split", "split the output where the input is split (GGUF input)", field="keep_split", source="gguf", **_MODEL),
    Flag(
        "--max-shard-size", "write safetensors shards of at most this size (default 5G)", "SIZE", "max_shard_bytes", "size",
        **_MODEL,
    ),
    Flag("--seed", "seed of the random methods (default 0)", "N", "seed", "integer", **_RECIPE),
    Flag("--lenient", "unknown keys of a recipe are warnings, not errors", field="lenient", **_RECIPE),
    Flag("--allow-crimes", "merge models of different architectures", field="allow_crimes", **_RECIPE),
    Flag(
        "--rank --max-rank", "rank of the factors, where a matrix is not smaller (default 128)", "N", kind="positive",
        default=128, **_ADAPTER,
    ),
    Flag(
        "--distribute-scale", "split the singular values evenly between A and B (default), instead of all into A", default=True,
        **_ADAPTER,
    ),
    Flag("--embed-lora", "factors for embeddings too, instead of saving them whole", **_ADAPTER),
    Flag("--save-module", "save these modules whole; may be repeated", "NAME", many=True, default=[], **_ADAPTER),
    Flag("--include-regex", "only modules whose path has a match", "REGEX", **_ADAPTER),
    Flag("--exclude-regex", "no modules whose path has a match", "REGEX", **_ADAPTER),
    Flag("--sv-epsilon", "leave out singular values up to X (default 0)", "X", kind="number", default=0.0, **_ADAPTER),
    Flag("--skip-undecomposable", "leave out what no adapter can express", **_ADAPTER),
    Flag("--size", "choose types so that the file has at most this size, such as 4.2GiB", "SIZE", kind="size", **_SIZE),
    Flag("--bpw", "the same in bits per weight, such as 4.5", "BITS", kind="number", **_SIZE),
    Flag("--types", "types to choose from (default: Q2_K,Q3_K,IQ4_XS,Q4_K,Q5_K,Q6_K,Q8_0)", "TYPES", **_SIZE),
    Flag("--no-check", "do not compare with the best standard mix", **_SIZE),
    Flag("--thorough", "measure on four times as many tokens, and each third of the layers by itself", **_SIZE),
    Flag("--same-types", "the same type for q, k and v of a block, and for gate and up: some runtimes fuse them", **_SIZE),
    Flag("--text", "the text: a file in UTF-8; imatrix and mix have one of their own", "FILE", kind="path",
         **{**_TEXT, "commands": (*EVALUATIONS, "convert")}),
    Flag("--ctx-size -c", "tokens of a chunk (default 512)", "N", kind="positive", **_TEXT),
    Flag("--chunks", "the most chunks; -1: all (default: 40 of 512 tokens, more where there are experts)", "N", kind="integer",
         **_TEXT),
    Flag("--from-chunk --chunk", "leave out the first N chunks", "N", kind="integer", default=0, **_TEXT),
    Flag("--parse-special", "texts such as <|im_start|> become the tokens of that name", **_TEXT),
    Flag("--process-output", "an entry for output.weight, too", **_MATRIX),
    Flag("--in-file", "add this importance matrix; may be repeated, and without a model files are added up", "FILE", kind="path",
         many=True, default=[], **_MATRIX),
    Flag("--show-statistics", "print statistics of every entry: of what is written, or of one --in-file", **_MATRIX),
    Flag("--no-ppl", "do not compute the perplexity", **_MATRIX),
    Flag("--type", "F32, F16 or BF16 (default: factors F32, the rest as it is)", "TYPE", "type", **_ADAPTER),
    Flag(
        "--ram", "memory to allocate, such as 512MiB (default: a quarter, at most 2GiB)", "SIZE", "ram_bytes", "size",
        **_RUN,
    ),
    Flag("--set", "set a key, which keeps its type; KEY:TYPE=VALUE adds one; may be repeated", "KEY=VALUE", many=True,
         default=[], **_EDIT),
    Flag("--remove-key --remove-metadata", "remove a key; may be repeated", "KEY", many=True, default=[], **_EDIT),
    Flag("--rename-key", "rename a key; may be repeated", "OLD=NEW", many=True, default=[], **_EDIT),
    Flag("--general-name", "the name of the model", "NAME", **_EDIT),
    Flag("--general-description", "what the model is", "TEXT", **_EDIT),
    Flag("--chat-template", "chat template, or several as JSON: a list of objects with name and template", "TEXT", **_EDIT),
    Flag("--chat-template-file", "the same, read from a file", "FILE", kind="path", **_EDIT),
    Flag("--chat-template-config", "the same, read from a tokenizer_config.json", "FILE", kind="path", **_EDIT),
    Flag("--pre-tokenizer", "the pre-tokenizer of BPE", "NAME", **_EDIT),
    Flag("--special-token", "which token is bos, eos, eot, padding, …, by its text; may be repeated", "NAME TEXT", many=True,
         default=[], **_EDIT),
    Flag("--special-token-by-id", "the same by its id", "NAME ID", many=True, default=[], **_EDIT),
    Flag("--in-place", "change IN itself instead of writing OUT", **_EDIT),
    Flag("--xxh64", "XXH64 (default)", **_HASH),
    Flag("--sha1", "SHA-1", **_HASH),
    Flag("--sha256", "SHA-256", **_HASH),
    Flag("--all", "all three", **_HASH),
    Flag("--uuid", "a UUID (version 5) of all data", **_HASH),
    Flag("--no-layer", "only digests of all data, not of each tensor", **_HASH),
    Flag("--check -c", "compare with the digests in a file that hash printed", "MANIFEST", kind="path", **_HASH),
    Flag("--threads", "worker threads (default: all cores)", "N", "threads", "positive",
         **{**_RUN, "commands": (*_RUN["commands"], "hash")}),
    Flag("--io", "how inputs are read; pread for unreliable media", field="io", choices=("mmap", "pread"),
         **{**_RUN, "commands": (*_RUN["commands"], "hash")}),
    Flag("--chunk-size", "most bytes per thread that a kill can lose (default 16MiB)", "SIZE", "chunk_bytes", "size", **_RUNNING),
    Flag(
        "--cluster", "use Dask workers: tcp://HOST:PORT or FILE.json of a scheduler, or local:N processes",
        "WHERE", "cluster", **_CLUSTER,
    ),
    Flag("--cluster-tls", "certificates for tls://HOST:PORT", "CA,CERT,KEY", "cluster_tls", needs="cluster", **_CLUSTER),
    Flag("--offline", "no network access; use local files only", field="offline", **_HUB),
    Flag(
        "--refresh", "resolve the branch again, instead of the commit it was first fetched at", field="refresh",
        source="hub", **_HUB,
    ),
    Flag(
        "--evict", "free fetched ranges once the output made from them is durable", field="evict", source="hub", **_KEPT
    ),
    Flag("--keep", "keep fetched files for later runs (default)", **_KEPT),
    Flag(
        "--keep-packed", "pack each weight file once it is fetched, and keep it packed for later runs", field="keep_packed",
        source="hub", **{**_KEPT, "commands": (*PLANS, "fetch")},
    ),
    Flag(
        "--reuse",
        "copy equal tensors from this older output, made with --manifest; may be repeated (default: outputs beside OUT)", "OLD",
        "reuse", "path", many=True, **_REUSE,
    ),
    Flag("--no-reuse", "make every tensor, even if an older output has it", field="no_reuse", **_REUSE),
    Flag(
        "--manifest", "record a digest of every tensor of OUT, for --reuse; reads OUT back before it gets its name",
        field="manifest", group="running", commands=PLANS,
    ),
    Flag("--all", "every file, not only what a conversion needs", **_FETCH),
    Flag("--verify", "verify fetched files against their digests; fetch damaged ones again", **_FETCH),
    Flag("--stop-after", _STOP, "TIME", kind="seconds", **_FETCH),
    Flag("--nice", _NICE, **_FETCH),
    Flag(
        "--work", "keep the work in NAME.streamconv until it is done, so that the same command resumes (default: beside the"
        " page of --report; else nothing is kept)", "NAME", kind="path", **_WORK,
    ),
    Flag("--stop-after", _STOP, "TIME", "stop_after_s", "seconds",
         **{**_RESUMING, "commands": (*_RESUMING["commands"], *_WORK["commands"])}),
    Flag("--force", "start over where NAME.streamconv has the work of another command", field="force", **_WORK),
    Flag("--update", "make again what was made of models or a text that have changed", field="update", **_WORK),
    Flag(
        "--force", "replace OUT (a single file even if streamconv did not write it), or an unfinished job with another plan",
        field="force", **{**_RESUMING, "commands": (*RUNS, *PACKING, "split", "join", "imatrix", "mix")},
    ),
    Flag(
        "--force", "replace OUT, or an unfinished job with another plan; also make changes after which loaders may refuse the file",
        field="force", **{**_RESUMING, "commands": ("edit",)},
    ),
    Flag(
        "--update",
        "replace an OUT that streamconv wrote, or such a job, when inputs or options have changed; for pipelines",
        field="update", **_RESUMING,
    ),
    Flag(
        "--verify-on-resume", "finished chunks to verify before resuming (default: all)", field="verify",
        choices=("all", "recent", "none"), **{**_RESUMING, "commands": (*RUNS, *COPIES, *PACKING, "imatrix")},
    ),
    Flag("--nice", _NICE, **{**_RESUMING, "commands": (*RUNS, *COPIES, *PACKING, *EVALUATIONS)}),
    Flag(
        "--report", "write a page with plots to FILE.html, or type, hash and error of every tensor as JSON lines", "FILE", "report",
        "path", **_REPORTING,
    ),
    Flag("--report", "write a page with plots to FILE.html", "FILE", "report", "path", commands=("compare", "mix")),
    Flag("--dry-run", "print the plan, write nothing", **{**_REPORTING, "commands": (*RUNS, *COPIES)}),
)  # fmt: skip


def add(parser: argparse.ArgumentParser, command: str, flags: Iterable[Flag]) -> None:
    """Give ``parser`` those of ``flags`` that ``command`` has (``argparse.ArgumentError``: one is there already)."""
    places: dict[str, Any] = {"": parser, **{str(group.title): group for group in parser._action_groups}}
    alternatives: dict[str, Any] = {}
    for flag in flags:
        if command not in flag.commands:
            continue
        if flag.group not in places:
            places[flag.group] = parser.add_argument_group(flag.group)
        place = places[flag.group]
        if flag.alternative:
            if flag.alternative not in alternatives:
                alternatives[flag.alternative] = place.add_mutually_exclusive_group()
            place = alternatives[flag.alternative]
        place.add_argument(*flag.names.split(), **flag.keywords())


def read_flags(text: str) -> list[Flag]:
    """Every ``Flag(...)`` in the text of a module, without running it: their arguments must be plain values."""
    import ast

    calls = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "Flag"]
    plain = ast.literal_eval
    return [Flag(*map(plain, call.args), **{str(k.arg): plain(k.value) for k in call.keywords}) for call in calls]
