"""Does what grpcurl does with the options that the guide uses: over reflection, JSON in and out.

As grpcurl it knows nothing of a server but what reflection tells. It calls EDGENAS_ADDRESS in place of the
address that the guide names, and appends what it did to the file EDGENAS_CALLS.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

ADDRESS = "127.0.0.1:50151"


def main() -> int:
    # Words after the options only, as grpcurl wants it.
    parser = argparse.ArgumentParser(prog="grpcurl", allow_abbrev=False)
    parser.add_argument("-plaintext", action="store_true", required=True)
    parser.add_argument("-d", dest="data", default="")
    parser.add_argument("-max-time", type=float)
    parser.add_argument("words", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    address, *words = options.words
    if address != ADDRESS:
        parser.error(f"the address is {address}, expected {ADDRESS}")
    with grpc.insecure_channel(os.environ["EDGENAS_ADDRESS"]) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        if words == ["list"]:
            show("\n".join(database.get_services()))
            return noted({"words": words})
        pool = DescriptorPool(database)
        if words[:1] == ["list"]:
            (service,) = words[1:]
            show("\n".join(method.full_name for method in pool.FindServiceByName(service).methods))
            return noted({"words": words})
        if words[:1] == ["describe"]:
            (symbol,) = words[1:]
            show(pool.FindFileContainingSymbol(symbol).name)
            return noted({"words": words})
        (path,) = words
        service, _, name = path.partition("/")
        method = pool.FindServiceByName(service).FindMethodByName(name)
        data = sys.stdin.read() if options.data == "@" else options.data
        return call(channel, method, data, options.max_time)


def call(channel: grpc.Channel, method: MethodDescriptor, data: str, limit_s: float | None) -> int:
    """Make one call and return grpcurl's exit code."""
    made = list(requests(method, data))
    style = "_".join(
        "stream" if streams else "unary" for streams in (method.client_streaming, method.server_streaming)
    )
    invoke = getattr(channel, style)(
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
    answers, status, details = [], "OK", ""
    try:
        result = invoke(iter(made) if method.client_streaming else made[0], timeout=limit_s)
        for answer in result if method.server_streaming else [result]:
            answers.append(json_format.MessageToDict(answer))
            show(json.dumps(answers[-1], indent=2))
    except grpc.RpcError as error:
        status, details = error.code().name, error.details()
        sys.stderr.write(f"ERROR:\n  Code: {status}\n  Message: {details}\n")
    noted(
        {
            "method": method.full_name,
            "requests": [
                json_format.MessageToDict(message, preserving_proto_field_name=True) for message in made
            ],
            "answers": answers,
            "status": status,
            "details": details,
            "limited": limit_s is not None,
        }
    )
    return 0 if status == "OK" else 64 + grpc.StatusCode[status].value[0]


def requests(method: MethodDescriptor, data: str) -> Iterator:
    """Yield the messages that stand one after the other in JSON; an unknown field is an error."""
    kind, decoder, found = GetMessageClass(method.input_type), json.JSONDecoder(), 0
    while data := data.lstrip():
        values, end = decoder.raw_decode(data)
        yield json_format.ParseDict(values, kind())
        data, found = data[end:], found + 1
    if not found and not method.client_streaming:
        yield kind()


def show(text: str) -> None:
    sys.stdout.write(text + "\n")


def noted(what: dict[str, object]) -> int:
    with Path(os.environ["EDGENAS_CALLS"]).open("a") as file:
        file.write(json.dumps(what) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
