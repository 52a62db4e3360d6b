from pathlib import Path

import pytest

from controller.core.errors import ConfigurationError, NotFoundError
from controller.devices.address import parse_address
from controller.devices.registry import DeviceRegistry, RegisteredDevice


@pytest.fixture
def registry(tmp_path: Path) -> DeviceRegistry:
    return DeviceRegistry(tmp_path / "home" / "devices.json")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("pi4.lan", "pi4.lan:50151"),
        ("192.168.1.20:6000", "192.168.1.20:6000"),
        ("[fe80::1%eth0]", "[fe80::1%eth0]:50151"),
        ("[::1]:50152", "[::1]:50152"),
    ],
)
def test_address_gets_the_default_port(text: str, address: str) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "pi4:", "pi4:99999", "pi4:0", "http://pi4", "::1", "two words"])
def test_address_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="expected HOST or HOST:PORT"):
        parse_address(text)


def test_registry_keeps_what_was_added(registry: DeviceRegistry, tmp_path: Path) -> None:
    registry.add("pi4", "pi4.lan")
    registry.add("jetson", "10.0.0.7:6000")

    again = DeviceRegistry(tmp_path / "home" / "devices.json")

    assert again.devices() == [
        RegisteredDevice(name="jetson", address="10.0.0.7:6000", paired=False),
        RegisteredDevice(name="pi4", address="pi4.lan:50151", paired=False),
    ]
    assert again.find("pi4").address == "pi4.lan:50151"


def test_registry_forgets_what_was_removed(registry: DeviceRegistry) -> None:
    registry.add("pi4", "pi4.lan")

    registry.remove("pi4")

    assert registry.devices() == []
    with pytest.raises(NotFoundError, match="device 'pi4' is not registered"):
        registry.remove("pi4")


@pytest.mark.parametrize("name", ["local", "", "two words", "-x", "a/b", "a" * 65])
def test_registry_refuses_names_that_cannot_be_used(registry: DeviceRegistry, name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be used"):
        registry.add(name, "pi4.lan")


def test_registry_refuses_a_name_twice(registry: DeviceRegistry) -> None:
    registry.add("pi4", "pi4.lan")

    with pytest.raises(ConfigurationError, match=r"device 'pi4' is registered at pi4\.lan:50151"):
        registry.add("pi4", "other.lan")


@pytest.mark.parametrize("text", ["{not json", "[1, 2]", '{"pi4": 3}', '{"pi4": "no address"}'])
def test_registry_says_which_file_is_broken(tmp_path: Path, text: str) -> None:
    path = tmp_path / "devices.json"
    path.write_text(text)

    with pytest.raises(ConfigurationError, match=f"device registry {path}"):
        DeviceRegistry(path).devices()
