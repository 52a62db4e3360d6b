"""Drawing and changing architectures choice by choice, for spaces whose `compose` says what they make together."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from controller.core.architecture import Architecture
from controller.core.errors import SpaceError
from controller.core.protocols import Rng, SearchSpace
from controller.spaces.presets import Limits

ATTEMPTS = 2000

Option = TypeVar("Option")


def one_of(options: Sequence[Option], rng: Rng) -> Option:
    """Return any of the options: what `rng.choice` does, without an array of them, and some times faster."""
    return options[int(rng.integers(len(options)))]


def drawn(attempt: Callable[[], Architecture | None], limits: Limits) -> Architecture:
    """Return the first architecture that an attempt gives.

    Args:
        attempt: Draws one; None where it is not within limits.
        limits: For the message.

    Raises:
        SpaceError: If none of 2,000 attempts gives any.
    """
    for _ in range(ATTEMPTS):
        architecture = attempt()
        if architecture is not None:
            return architecture
    raise SpaceError(
        f"none of {ATTEMPTS} random architectures is within {limits}; "
        "choose a larger preset, fewer layers or smaller channels"
    )


def mutated(space: SearchSpace, architecture: Architecture, rng: Rng) -> Architecture:
    """Return a neighbour with another option in one choice; a random one where no single change makes another."""
    open_choices = [choice for choice in space.choices if len(choice.options) > 1]
    for _ in range(ATTEMPTS if open_choices else 0):
        choice = one_of(open_choices, rng)
        neighbour = space.compose({**architecture.values, choice.name: one_of(choice.options, rng)})
        if neighbour is not None and neighbour != architecture:
            return neighbour
    return space.sample(rng)


def crossed(space: SearchSpace, first: Architecture, second: Architecture, rng: Rng) -> Architecture:
    """Return first with a contiguous block of choices from second; first where no block fits."""
    for _ in range(ATTEMPTS):
        start, stop = sorted(rng.integers(0, len(space.choices) + 1, size=2).tolist())
        block = {choice.name: second[choice.name] for choice in space.choices[start:stop]}
        child = space.compose({**first.values, **block})
        if child is not None:
            return child
    return first


def check_options(space: SearchSpace, architecture: Architecture) -> None:
    """Refuse an architecture that does not have exactly the choices of a space, each with one of its options.

    Raises:
        SpaceError: If it does not.
    """
    for choice in space.choices:
        value = architecture.values.get(choice.name)
        if value not in choice.options:
            raise SpaceError(
                f"architecture {architecture.id} has {choice.name} = {value!r}; expected one of {list(choice.options)}"
            )
    if len(architecture.items) != len(space.choices):
        raise SpaceError(
            f"architecture {architecture.id} has {len(architecture.items)} choices; this space has {len(space.choices)}"
        )
