from controller.core.measurement import OperatorTime
from controller.core.operators import OperatorShare, by_layer, by_type


def time(layer: str, operator_type: str, mean_ms: float, calls: float = 1.0) -> OperatorTime:
    return OperatorTime(
        layer=layer, operator_type=operator_type, provider="CPU", mean_ms=mean_ms, calls=calls
    )


STEM, HEAD, RELU = time("stem", "Conv", 1.0), time("head", "Gemm", 2.0), time("relu", "Relu", 0.5, calls=2.0)
BODY = time("body", "Conv", 1.5)


def test_operators_of_one_type_are_added_up_largest_first():
    assert by_type([STEM, HEAD, RELU, BODY]) == [
        OperatorShare(operator_type="Conv", mean_ms=2.5, share=0.5, layers=2, calls=2.0),
        OperatorShare(operator_type="Gemm", mean_ms=2.0, share=0.4, layers=1, calls=1.0),
        OperatorShare(operator_type="Relu", mean_ms=0.5, share=0.1, layers=1, calls=2.0),
    ]


def test_layers_come_slowest_first_with_their_share():
    assert by_layer([STEM, HEAD, RELU, BODY]) == [(HEAD, 0.4), (BODY, 0.3), (STEM, 0.2), (RELU, 0.1)]


def test_no_operators_have_no_shares():
    assert by_type([]) == []
    assert by_layer([]) == []
