"""Tags of the fields of onnx.proto that the agent reads, `number << 3 | wire type`, and its element types.

Source: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from device_agent.runtimes.protobuf_fields import LENGTH, VARINT

MODEL_IR_VERSION = 1 << 3 | VARINT
MODEL_GRAPH = 7 << 3 | LENGTH
MODEL_FUNCTIONS = 25 << 3 | LENGTH
FUNCTION_NAME = 1 << 3 | LENGTH
FUNCTION_NODE = 7 << 3 | LENGTH
FUNCTION_DOMAIN = 10 << 3 | LENGTH
FUNCTION_ATTRIBUTE_PROTO = 11 << 3 | LENGTH
GRAPH_NODE = 1 << 3 | LENGTH
GRAPH_INITIALIZER = 5 << 3 | LENGTH
GRAPH_INPUT = 11 << 3 | LENGTH
GRAPH_SPARSE_INITIALIZER = 15 << 3 | LENGTH
NODE_OP_TYPE = 4 << 3 | LENGTH
NODE_ATTRIBUTE = 5 << 3 | LENGTH
NODE_DOMAIN = 7 << 3 | LENGTH
ATTRIBUTE_NAME = 1 << 3 | LENGTH
ATTRIBUTE_I = 3 << 3 | VARINT
ATTRIBUTE_S = 4 << 3 | LENGTH
ATTRIBUTE_T = 5 << 3 | LENGTH
ATTRIBUTE_G = 6 << 3 | LENGTH
ATTRIBUTE_TENSORS = 10 << 3 | LENGTH
ATTRIBUTE_GRAPHS = 11 << 3 | LENGTH
ATTRIBUTE_SPARSE_TENSOR = 22 << 3 | LENGTH
ATTRIBUTE_SPARSE_TENSORS = 23 << 3 | LENGTH
TENSOR_DIMS = 1 << 3 | VARINT
TENSOR_PACKED_DIMS = 1 << 3 | LENGTH
TENSOR_DATA_TYPE = 2 << 3 | VARINT
TENSOR_NAME = 8 << 3 | LENGTH
TENSOR_EXTERNAL_DATA = 13 << 3 | LENGTH
TENSOR_DATA_LOCATION = 14 << 3 | VARINT
SPARSE_VALUES = 1 << 3 | LENGTH
SPARSE_INDICES = 2 << 3 | LENGTH
ENTRY_KEY = 1 << 3 | LENGTH
ENTRY_VALUE = 2 << 3 | LENGTH
VALUE_NAME = 1 << 3 | LENGTH
VALUE_TYPE = 2 << 3 | LENGTH
TYPE_TENSOR = 1 << 3 | LENGTH
TYPE_OTHERS = frozenset(number << 3 | LENGTH for number in (4, 5, 7, 8, 9))
TENSOR_TYPE_ELEM_TYPE = 1 << 3 | VARINT
TENSOR_TYPE_SHAPE = 2 << 3 | LENGTH
SHAPE_DIM = 1 << 3 | LENGTH
DIM_VALUE = 1 << 3 | VARINT
DIM_PARAM = 2 << 3 | LENGTH

EXTERNAL = 1
ELEMENT_TYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    8: "string",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    14: "complex64",
    15: "complex128",
    16: "bfloat16",
    17: "float8e4m3fn",
    18: "float8e4m3fnuz",
    19: "float8e5m2",
    20: "float8e5m2fnuz",
    21: "uint4",
    22: "int4",
    23: "float4e2m1",
    24: "float8e8m0",
    25: "uint2",
    26: "int2",
    27: "float6e2m3",
    28: "float6e3m2",
}
