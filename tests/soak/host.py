"""A host that asks for one measurement after the other, and writes each result down before it asks for the next.

    host.py NAME ADDRESS CREDENTIALS RESULTS COUNT END_S

It does what a search does with its store: started again after `kill -9`, it goes on behind the last result that it wrote.
It asks for COUNT measurements, and for more until END_S on the monotonic clock.
"""

import hashlib
import json
import os
import sys
import time
from pathlib import Path

import numpy
from onnx import TensorProto, helper, numpy_helper

from controller.core.measurement import ExportedModel, MeasurementMode, ModelFormat
from controller.core.options import MeasurementOptions
from controller.devices.client import DeviceClient
from controller.devices.credentials import CredentialsFolder

MODELS = 7  # so many different ones, so that some are cached and some are not


def model(seed: int) -> ExportedModel:
    weight = numpy.random.default_rng(seed).standard_normal((8, 3, 3, 3)).astype("float32")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "weight"], ["output"], pads=[1, 1, 1, 1])],
        "conv",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, (1, 3, 16, 16))],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "weight")],
    )
    data = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()
    return ExportedModel(
        data=data,
        format=ModelFormat.ONNX,
        sha256=hashlib.sha256(data).hexdigest(),
        precision="float32",
    )


def main(name: str, address: str, credentials: str, results: str, count: str, end_s: str) -> None:
    path = Path(results)
    known = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    # The last line may be half a line.
    done = sum(line.endswith("}") for line in known)
    path.write_text("".join(line + "\n" for line in known[:done]), encoding="utf-8")
    with (
        DeviceClient(name, address, credentials=CredentialsFolder(Path(credentials))) as client,
        path.open("a", encoding="utf-8") as file,
    ):
        while done < int(count) or time.monotonic() < float(end_s):
            request_id = f"{name}-{done}"
            measured = client.measure(
                model(done % MODELS),
                request_id=request_id,
                model_name=name,
                mode=MeasurementMode.SEARCH,
                options=MeasurementOptions(threads=1),
            )
            line = {
                "request_id": measured.request_id,
                "finished_at": measured.finished_at.isoformat(),
                "median_ms": measured.latency.median_ms,
            }
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
            done += 1


if __name__ == "__main__":
    main(*sys.argv[1:])
