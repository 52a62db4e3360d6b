"""Choices, and the architectures that choosing makes."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from controller.core.errors import SpaceError

ChoiceValue = str | int


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A named categorical decision.

    Attributes:
        name: Unique within its space, e.g. `layer_3.operation`.
        options: What can be chosen; the first one stands for an inactive choice.
    """

    name: str
    options: tuple[ChoiceValue, ...]

    def __post_init__(self) -> None:
        if not self.options or len(set(self.options)) != len(self.options):
            raise SpaceError(
                f"choice '{self.name}' has options {list(self.options)}; expected distinct ones, at least one"
            )


def option_places(choices: Sequence[Choice], values: Mapping[str, ChoiceValue]) -> list[int]:
    """Return the index of the option that values hold, for each choice.

    Raises:
        ValueError: If a value is no option of its choice.
    """
    return [choice.options.index(values[choice.name]) for choice in choices]


@dataclass(frozen=True)
class Architecture:
    """The values of a space's choices, in canonical form.

    Spaces canonicalise before they build one, so that equal networks have equal ids.

    Attributes:
        items: (choice name, value) pairs, sorted by name.
    """

    items: tuple[tuple[str, ChoiceValue], ...]

    @classmethod
    def of(cls, values: Mapping[str, ChoiceValue]) -> "Architecture":
        """Return the architecture with these values, whatever their order."""
        return cls(tuple(sorted(values.items())))

    @classmethod
    def from_json(cls, text: str) -> "Architecture":
        """Return the architecture that `to_json` wrote.

        Raises:
            SpaceError: If text is no JSON object of strings and integers.
        """
        try:
            values = json.loads(text)
        except ValueError as error:  # an integer of thousands of digits is one too
            raise SpaceError(f"architecture {text[:60]!r} is not JSON: {error}") from error
        if not isinstance(values, dict) or not all(type(value) in (str, int) for value in values.values()):
            raise SpaceError(f"architecture {text[:60]!r} is not a JSON object of strings and integers")
        return cls.of(values)

    def to_json(self) -> str:
        """Return canonical JSON: sorted keys, no spaces."""
        return json.dumps(dict(self.items), sort_keys=True, separators=(",", ":"))

    @cached_property
    def id(self) -> str:
        """Content id: the first 16 hexadecimal digits of the sha256 of the canonical JSON."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    @cached_property
    def values(self) -> Mapping[str, ChoiceValue]:
        """The values by choice name. Owned by the architecture: copy before changing."""
        return dict(self.items)

    def __getitem__(self, name: str) -> ChoiceValue:
        return self.values[name]
