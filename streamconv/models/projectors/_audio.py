"""What projectors of sound have in common: Whisper's tower and its kin, whatever the classes around it call its sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ...errors import BadInput
from ...metadata import Metadata
from ...sources.hf_config import AUDIO, THINKER, section
from ..assumed import Assumed, judged
from ..config import Config, normalise
from ..family import Family
from ..keys import Key
from ._sound_rows import one_column
from ._vision import ears, kind, projector, told, within

#: sizes of Whisper's encoder, of which classes call the same by either name
_SPELLINGS = {
    "d_model": "hidden_size", "encoder_ffn_dim": "intermediate_size", "encoder_attention_heads": "num_attention_heads",
    "encoder_layers": "num_hidden_layers",
}  # fmt: skip
#: class defaults of all encoders that are Whisper's
WHISPER = {
    "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20, "num_mel_bins": 128,
    "activation_function": "gelu", "scale_embedding": False,
}  # fmt: skip
#: what runtimes compute in it
OF_WHISPER = {"activation_function": Assumed(("gelu",)), "scale_embedding": Assumed((False,))}
#: lengths of what Qwen 3's encoder looks at, which runtimes take to be those of the published models
WINDOWS = told(**{
    f"{outer}{AUDIO}__{key}": value
    for outer in ("", f"{THINKER}__")
    for key, value in (("n_window", 50), ("n_window_infer", 800))
})  # fmt: skip


def sound_section(*names: str) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    """The first of the sections ``names``, at the root or in the thinker, with sizes by one name; BadInput where there is none."""

    def find(raw: Mapping[str, Any]) -> Mapping[str, Any]:
        outer = section(raw, THINKER) or raw
        found = next((outer[name] for name in names if isinstance(outer.get(name), Mapping)), None)
        if found is None:
            raise BadInput(f"config.json has no {names[0]!r}, so there is no projector to write")
        return spelled_as_one(found)

    return find


def spelled_as_one(found: Mapping[str, Any]) -> dict[str, Any]:
    """Sizes of an encoder, each by one name; that which is stated by this name goes before."""
    other = {ours: found[theirs] for theirs, ours in _SPELLINGS.items() if found.get(theirs) is not None}
    return {**other, **{key: value for key, value in found.items() if key not in _SPELLINGS and value is not None}}


def insist(c: Config, values: Mapping[str, Any], assumes: Mapping[str, Assumed]) -> None:
    """BadInput where ``values``, another section than ``c`` itself, say what runtimes do not compute."""
    for _told in judged(Config(values, {}, {}, c.checkpoint), assumes, "clip"):
        pass


def of_root(**assumes: Assumed) -> Key:
    """A key that writes nothing, and refuses what the root of config.json says otherwise than runtimes compute."""

    def key(_m: Metadata, _arch: str, c: Config) -> None:
        insist(c, c.raw, assumes)

    return key


def heard(m: Metadata, _arch: str, c: Config) -> None:
    """How finely a spectrum is told, and the epsilon of norms."""
    m.u32("clip.audio.num_mel_bins", c.integer("num_mel_bins"))
    m.f32(
        "clip.audio.attention.layer_norm_epsilon", 1e-5 if c.get("layer_norm_eps") is None else c.real("layer_norm_eps")
    )


def hearing(m: Metadata, _arch: str, c: Config) -> None:
    """Sizes of a tower that hears, of a file that has no other."""
    ears(m, c, c)


def stacked(count: Callable[[Config], Any]) -> Key:
    """How many frames become one (BadInput: not a whole number above 0)."""

    def key(m: Metadata, _arch: str, c: Config) -> None:
        found = count(c)
        if isinstance(found, bool) or not isinstance(found, int) or found < 1:
            raise BadInput(f"{c.place}: {found!r} frames of sound are to become one, not a whole number above 0")
        m.u32("clip.audio.projector.stack_factor", found)

    return key


def whisper(
    name: str,
    architectures: tuple[str, ...],
    *keys: Key,
    sections: tuple[str, ...] = (AUDIO,),
    convolutions: str = "F16",
    classes: Mapping[str, Mapping[str, Any]] | None = None,
    **more: Any,
) -> Family:
    """The family of a projector of sound: Whisper's encoder with a projection, which ``clip.projector_type`` calls ``name``.

    Parameters
    ----------
    keys : after those of the encoder
    sections : where config.json describes the encoder
    convolutions : type of the weights of the first layers, in files of any type
    more : fields of ``Family``
    """
    fields: dict[str, Any] = {"why_not": within("audio_tower.", "multi_modal_projector."), "spelled": spelled, **more}
    return projector(
        (name,),
        architectures,
        keys=(hearing, kind(name), heard, *keys),
        section=sound_section(*sections),
        classes=classes or {},
        assumes=OF_WHISPER,
        transforms={"a.conv1d.*": one_column},
        types={"a.conv1d.*.weight": convolutions},
        **fields,
    )


def spelled(name: str, _config: Config) -> str:
    """``name`` as the table has it: projections of sound are told from those of images."""
    name = name.removeprefix("thinker.").removeprefix("model.")
    return f"audio.{name}" if name.startswith("multi_modal_projector.") else name


def whisper_beside(model_type: str) -> Callable[[Config], Config]:
    """The configuration of a tower of sound beside one of images (BadInput: runtimes do not compute it)."""

    def sound(c: Config) -> Config:
        found = normalise(sound_section("audio_config")(c.raw), {model_type: WHISPER}, c.checkpoint)
        insist(c, found.values, OF_WHISPER)
        return found

    return sound
