import json
import subprocess
import sys
import venv
from email import message_from_bytes
from importlib.metadata import Distribution, PathDistribution
from importlib.resources import files
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from controller.core.errors import ConfigurationError, WheelhouseError
from controller.devices.wheelhouse import INSTALLER, PYTHONS, build_wheel, make_wheelhouse, origin

BOARD_FILES = {"install-agent.sh", "start-agent.sh", "edgenas-agent.sh", "edgenas-agent.service"}


def installed(tmp_path: Path, direct_url: object) -> Distribution:
    folder = tmp_path / "edgenas-1.2.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: edgenas\nVersion: 1.2\n")
    if direct_url is not None:
        (folder / "direct_url.json").write_text(json.dumps(direct_url))
    return PathDistribution(folder)


@pytest.mark.parametrize(
    ("direct_url", "expected"),
    [
        (None, "edgenas==1.2"),
        ({"url": "file:///checkout", "dir_info": {"editable": True}}, "file:///checkout"),
        (
            {"url": "file:///edgenas-1.2-py3-none-any.whl", "archive_info": {}},
            "file:///edgenas-1.2-py3-none-any.whl",
        ),
        (
            {"url": "https://example.org/edgenas.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
            "git+https://example.org/edgenas.git@abc",
        ),
    ],
)
def test_origin_is_where_the_installation_came_from(
    tmp_path: Path, direct_url: object, expected: str
) -> None:
    assert origin([installed(tmp_path, direct_url)]) == expected


def test_origin_is_told_by_the_installation_and_not_by_a_build(tmp_path: Path) -> None:
    (tmp_path / "build").mkdir()
    (tmp_path / "environment").mkdir()
    built = installed(tmp_path / "build", None)
    used = installed(tmp_path / "environment", {"url": "file:///checkout", "dir_info": {}})

    assert origin([built, used]) == "file:///checkout"


def test_installation_holds_what_a_board_needs() -> None:
    assert {file.name for file in files("edgenas_deploy").iterdir()} >= BOARD_FILES


def test_unknown_platform_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match="platform 'armv7l' is not supported; expected aarch64 or x86_64"
    ):
        make_wheelhouse(tmp_path / "wheels", platform="armv7l")


def test_unknown_python_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"Python '3\.8' is not supported on a board; expected one of 3\.10"
    ):
        make_wheelhouse(tmp_path / "wheels", platform="aarch64", pythons=["3.8"])


def test_folder_with_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()

    with pytest.raises(ConfigurationError, match="is not empty; name a new one"):
        make_wheelhouse(tmp_path, platform="aarch64")

    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_failing_pip_is_told_in_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")

    with pytest.raises(
        WheelhouseError, match=r"^pip cannot wheel \S+: No matching distribution found for .*; check"
    ) as told:
        make_wheelhouse(tmp_path / "wheels", platform="aarch64")

    assert "\n" not in str(told.value)
    assert list(tmp_path.iterdir()) == []


def test_wheel_holds_nothing_that_an_earlier_build_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # To pip, 0 is what switches an option on that begins with no: this environment's setuptools, without an index.
    monkeypatch.setenv("PIP_NO_BUILD_ISOLATION", "0")
    checkout = tmp_path / "checkout"
    (checkout / "board").mkdir(parents=True)
    (checkout / "board/__init__.py").touch()
    (checkout / "pyproject.toml").write_text(
        '[project]\nname = "board"\nversion = "1"\n[tool.setuptools]\npackages = ["board"]\n'
    )
    (checkout / "build/lib/board").mkdir(parents=True)
    (checkout / "build/lib/board/deleted.py").touch()
    before = sorted(checkout.rglob("*"))

    build_wheel(tmp_path, checkout.as_uri())

    with ZipFile(tmp_path / "board-1-py3-none-any.whl") as wheel:
        modules = [name for name in wheel.namelist() if name.endswith(".py")]
    assert modules == ["board/__init__.py"]
    assert sorted(checkout.rglob("*")) == before


@pytest.mark.slow
def test_agent_is_installed_from_a_wheelhouse_alone(tmp_path: Path) -> None:
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    made = make_wheelhouse(tmp_path / "wheels", platform="x86_64", pythons=[own])
    venv.create(tmp_path / "venv", symlinks=True)
    python = tmp_path / "venv/bin/python"
    (pip,) = made.folder.glob("pip-*.whl")

    options = ["--no-index", "--find-links", str(made.folder), "--only-binary=:all:"]
    subprocess.run([python, pip / "pip", "install", "--quiet", *options, "edgenas"], check=True)
    found = subprocess.run(
        [python, "-c", "import onnxruntime, edgenas_deploy; print(*edgenas_deploy.__path__)"],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )

    assert {path.name for path in Path(found.stdout.strip()).iterdir()} >= BOARD_FILES
    assert (made.folder / INSTALLER).stat().st_mode & 0o111 == 0o111
    subprocess.run([tmp_path / "venv/bin/edgenas-agent", "--version"], check=True)


@pytest.mark.slow
def test_wheelhouse_is_complete_for_every_python(tmp_path: Path) -> None:
    """Pip asks what a wheel needs on the Python that runs pip, so something could be missing for another one."""
    made = make_wheelhouse(tmp_path / "wheels", platform="aarch64")

    wheels = {wheel: parse_wheel_filename(wheel.name) for wheel in made.folder.glob("*.whl")}
    for python in PYTHONS:
        fits = {
            wheel: name
            for wheel, (name, _, _, tags) in wheels.items()
            if any(fits_python(tag.interpreter, tag.abi, python) for tag in tags)
        }
        missing = {
            f"{requirement} for {wheel.name}"
            for wheel in fits
            for requirement in requirements(wheel, python)
            if canonicalize_name(requirement.name) not in fits.values()
        }
        assert not missing, python


def fits_python(interpreter: str, abi: str, python: str) -> bool:
    minor = int(python.removeprefix("3."))
    if interpreter.startswith("py"):
        return "3" in interpreter
    return interpreter == f"cp3{minor}" or (abi == "abi3" and int(interpreter.removeprefix("cp3")) <= minor)


def requirements(wheel: Path, python: str) -> list[Requirement]:
    with ZipFile(wheel) as archive:
        (metadata,) = (
            name
            for name in archive.namelist()
            if name.endswith(".dist-info/METADATA") and name.count("/") == 1
        )
        told = message_from_bytes(archive.read(metadata)).get_all("Requires-Dist") or []
    target = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "platform_machine": "aarch64",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
        "extra": "",
    }
    parsed = [Requirement(line) for line in told]
    return [one for one in parsed if one.marker is None or one.marker.evaluate(target)]
