"""How third parties add to a folder's table: entry points of the group `edgenas.FOLDER`."""

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import TypeVar

from controller.core.errors import ConfigurationError

T = TypeVar("T")


def find_plugin(folder: str, table: Mapping[str, T], name: str) -> T:
    """Return the entry called name from the folder's own table, or from an installed package.

    Args:
        folder: The kind of plugin, e.g. `algorithms`.
        table: What EdgeNAS itself brings.
        name: What the user asked for.

    Raises:
        ConfigurationError: If nobody provides it, where the message lists what there is, or if it cannot be loaded.
    """
    if name in table:
        return table[name]
    installed = {entry.name: entry for entry in entry_points(group=f"edgenas.{folder}")}
    if name in installed:
        try:
            plugin: T = installed[name].load()
        except Exception as error:  # whatever somebody else's module does when it is imported
            raise ConfigurationError(
                f"{folder} has {name!r} by the entry point {installed[name].value!r}, which cannot be loaded: "
                f"{type(error).__name__}: {error}; repair or remove the package that brings it"
            ) from error
        return plugin
    known = ", ".join([*table, *installed])
    raise ConfigurationError(f"{folder} has no {name!r}; expected one of {known}")
