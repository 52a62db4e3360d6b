"""What a caller may do."""

import enum


class Role(enum.IntEnum):
    """Each role may do what those below it may."""

    QUERY = 1
    MEASURE = 2
    ADMIN = 3

    @property
    def label(self) -> str:
        """The role's name as people write it."""
        return self.name.lower()


def role_of(label: str) -> Role:
    """Return the role that people write so.

    Raises:
        ValueError: If there is none.
    """
    for role in Role:
        if role.label == label:
            return role
    raise ValueError(label)
