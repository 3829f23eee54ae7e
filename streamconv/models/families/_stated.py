"""Keys of the output that say what one key of config.json says, where it says it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ...metadata import Metadata
from ..config import Config
from ..keys import Key

#: names in config.json, the first that is there counts
Names = str | tuple[str, ...]


def _names(names: Names) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names


def _each(stated: Mapping[str, Names], write: Callable[[Metadata, str, Config, tuple[str, ...]], None]) -> Key:
    def key(m: Metadata, a: str, c: Config) -> None:
        for name, names in stated.items():
            if c.get(*_names(names)) is not None:
                write(m, f"{a}.{name}", c, _names(names))

    return key


def numbers(stated: Mapping[str, Names]) -> Key:
    """Whole numbers: key of the output without architecture -> names in config.json."""
    return _each(stated, lambda m, key, c, names: m.u32(key, c.integer(*names)))


def reals(stated: Mapping[str, Names]) -> Key:
    """Real numbers, likewise."""
    return _each(stated, lambda m, key, c, names: m.f32(key, c.real(*names)))


def flags(stated: Mapping[str, Names]) -> Key:
    """Yes or no, likewise."""
    return _each(stated, lambda m, key, c, names: m.boolean(key, bool(c.get(*names))))


def fixed(values: Mapping[str, int | float | bool | str]) -> Key:
    """What is the same in every model of the architecture."""

    def key(m: Metadata, a: str, c: Config) -> None:
        for name, value in values.items():
            if isinstance(value, bool):
                m.boolean(f"{a}.{name}", value)
            elif isinstance(value, int):
                m.u32(f"{a}.{name}", value)
            elif isinstance(value, float):
                m.f32(f"{a}.{name}", value)
            else:
                m.string(f"{a}.{name}", value)

    return key


#: of a mixture: what most say of experts
MIXTURE = numbers({
    "expert_feed_forward_length": "moe_intermediate_size", "leading_dense_block_count": "first_k_dense_replace",
    "expert_shared_count": ("n_shared_experts", "num_shared_experts"),
})  # fmt: skip
#: how the weights of a token's experts are scaled
WEIGHTS = (
    reals({"expert_weights_scale": "routed_scaling_factor"}), flags({"expert_weights_norm": "norm_topk_prob"}),
)  # fmt: skip
