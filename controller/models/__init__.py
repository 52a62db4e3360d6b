"""What a network becomes: a module, and the files a device reads."""

import os

# The official wheels of ONNX Runtime report to their maker unless this is set before they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
