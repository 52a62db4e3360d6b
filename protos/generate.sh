#!/usr/bin/env bash
# Writes the Python stubs next to their .proto files; `generate.sh --check` only compares and fails on drift.
# The compiler is pinned and lives in a virtual environment of its own: generated code asks for a runtime at
# least as new as its compiler, so an older compiler leaves boards a wider choice of grpcio and protobuf.
set -euo pipefail
cd "$(dirname "$0")"

tools="../.venv-protos"
pins="grpcio-tools==1.76.0 mypy-protobuf==3.7.0 setuptools<81"
if [ ! -f "$tools/pins" ] || [ "$(cat "$tools/pins")" != "$pins" ]; then
  rm -rf "$tools"
  "${PYTHON:-python3}" -m venv "$tools"
  # shellcheck disable=SC2086
  "$tools/bin/pip" install --quiet $pins
  echo "$pins" > "$tools/pins"
fi

out="."
if [ "${1:-}" = "--check" ]; then
  out="$(mktemp -d)"
  trap 'rm -rf "$out"' EXIT
fi
PATH="$PWD/$tools/bin:$PATH" "$tools/bin/python" -m grpc_tools.protoc --proto_path=. \
  --python_out="$out" --grpc_python_out="$out" \
  --mypy_out=quiet:"$out" --mypy_grpc_out=quiet:"$out" edgenas/v1/*.proto

if [ "$out" != "." ]; then
  status=0
  for file in "$out"/edgenas/v1/*; do
    cmp --silent "$file" "edgenas/v1/$(basename "$file")" || { echo "stub drift: edgenas/v1/$(basename "$file")"; status=1; }
  done
  [ "$status" -eq 0 ] || { echo "the committed stubs differ from the .proto files; run protos/generate.sh and commit the result"; exit 1; }
fi
