import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.core.architecture import Architecture, Choice
from controller.core.errors import SpaceError

VALUES = st.dictionaries(st.text(), st.one_of(st.text(), st.integers()))


@given(values=VALUES)
def test_architecture_survives_json(values: dict[str, str | int]):
    architecture = Architecture.of(values)
    assert Architecture.from_json(architecture.to_json()) == architecture


@given(values=VALUES, data=st.data())
def test_architecture_does_not_depend_on_the_order_of_its_values(
    values: dict[str, str | int], data: st.DataObject
):
    shuffled = dict(data.draw(st.permutations(list(values.items()))))
    assert Architecture.of(shuffled) == Architecture.of(values)
    assert Architecture.of(shuffled).id == Architecture.of(values).id


def test_architecture_json_is_canonical():
    architecture = Architecture.of({"layer_2.stride": 2, "layer_1.operation": "conv3x3"})
    assert architecture.to_json() == '{"layer_1.operation":"conv3x3","layer_2.stride":2}'


def test_architecture_id_is_the_beginning_of_the_digest_of_its_json():
    # printf '{"depth":3}' | sha256sum
    assert Architecture.of({"depth": 3}).id == "1f5095ec7a7c8833"


def test_architecture_id_tells_a_number_from_its_text():
    assert Architecture.of({"depth": 3}).id != Architecture.of({"depth": "3"}).id


def test_architecture_gives_values_by_name():
    architecture = Architecture.of({"depth": 3, "operation": "conv3x3"})
    assert architecture["operation"] == "conv3x3"
    assert architecture.values == {"depth": 3, "operation": "conv3x3"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        "null",
        '{"depth": 3.5}',
        '{"depth": true}',
        '{"depth": null}',
        '{"depth": [3]}',
        '{"depth": ' + "9" * 5000 + "}",
    ],
)
def test_architecture_refuses_json_that_is_none(text: str):
    with pytest.raises(SpaceError) as caught:
        Architecture.from_json(text)
    assert repr(text[:60]) in str(caught.value)


def test_choice_refuses_no_options():
    with pytest.raises(SpaceError, match=r"choice 'depth' has options \[\]; expected distinct ones"):
        Choice(name="depth", options=())


def test_choice_refuses_an_option_given_twice():
    with pytest.raises(SpaceError, match=r"choice 'depth' has options \[1, 2, 1\]"):
        Choice(name="depth", options=(1, 2, 1))
