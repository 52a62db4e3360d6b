from pathlib import Path

import pytest

from controller.core.errors import ConfigurationError
from controller.core.measurement import ModelFormat
from controller.models.file import ModelFile


def test_file_is_read_when_it_is_asked_for(tmp_path: Path):
    path = tmp_path / "net.onnx"
    path.write_bytes(b"abc")

    found = ModelFile.found("net", path, ModelFormat.ONNX)

    assert found.sha256 == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert found.read().data == b"abc"
    assert found.read().sha256 == found.sha256


@pytest.mark.parametrize("missing", ["nowhere.onnx", "."])
def test_what_cannot_be_read_is_refused(missing: str, tmp_path: Path):
    with pytest.raises(ConfigurationError, match=r"cannot be read: .*expected a file"):
        ModelFile.found("net", tmp_path / missing, ModelFormat.ONNX)


def test_file_that_went_away_is_named(tmp_path: Path):
    path = tmp_path / "net.onnx"
    path.write_bytes(b"abc")
    found = ModelFile.found("net", path, ModelFormat.ONNX)
    path.unlink()

    with pytest.raises(ConfigurationError, match=r"net\.onnx cannot be read any more: No such file"):
        found.read()


def test_batch_of_a_torchscript_model_is_its_first_size(tmp_path: Path):
    path = tmp_path / "net.pt"
    path.write_bytes(b"abc")

    with pytest.raises(ConfigurationError, match="the batch of a TorchScript model is the first size of"):
        ModelFile.found("net", path, ModelFormat.TORCHSCRIPT).refuse_fixed_batch(8, {})
