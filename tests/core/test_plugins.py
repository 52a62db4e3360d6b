from pathlib import Path

import pytest

from controller.core.errors import ConfigurationError
from controller.core.plugins import find_plugin

TABLE = {"conv3x3": 3, "conv5x5": 5}


@pytest.fixture
def third_party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a distribution that brings the operation `tau`."""
    metadata = tmp_path / "third_party-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[edgenas.operations]\ntau = math:tau\nlost = math:lost\ngone = gone_module:any\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))


def test_plugin_of_the_table_is_found():
    assert find_plugin("operations", TABLE, "conv5x5") == 5


@pytest.mark.usefixtures("third_party")
def test_plugin_of_an_installed_package_is_found():
    assert find_plugin("operations", {"conv3x3": 3.0}, "tau") == pytest.approx(6.2831853)


@pytest.mark.usefixtures("third_party")
def test_plugin_of_another_folder_is_not_found():
    with pytest.raises(ConfigurationError, match="algorithms has no 'tau'"):
        find_plugin("algorithms", {"random": 1}, "tau")


@pytest.mark.usefixtures("third_party")
def test_unknown_plugin_is_named_among_those_there_are():
    with pytest.raises(ConfigurationError) as caught:
        find_plugin("operations", TABLE, "conv9x9")
    assert (
        str(caught.value) == "operations has no 'conv9x9'; expected one of conv3x3, conv5x5, tau, lost, gone"
    )


@pytest.mark.usefixtures("third_party")
@pytest.mark.parametrize(("name", "reason"), [("lost", "AttributeError"), ("gone", "ModuleNotFoundError")])
def test_plugin_that_cannot_be_loaded_is_refused_with_the_reason(name: str, reason: str):
    with pytest.raises(
        ConfigurationError, match=f"{name!r} by the entry point .* cannot be loaded: {reason}"
    ):
        find_plugin("operations", TABLE, name)
