"""What callers and models say reaches messages and terminals as text, never as an order to them."""

import pytest

from device_agent.cli.tables import print_table
from device_agent.errors import AgentError, InvalidRequestError
from device_agent.text import one_line, printable, shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("größe 漢字", "größe 漢字"),
        ("a\nb\r\t", r"a\nb\r\t"),
        ("\x1b[31m\u202e", r"\x1b[31m\u202e"),
        ("\ud800", r"\ud800"),
    ],
)
def test_text_becomes_printable(text: str, expected: str):
    assert printable(text) == expected


def test_long_text_is_shown_in_part():
    assert shown("x" * 100) == "x" * 100
    assert shown("x" * 101) == "x" * 100 + "..."


def test_message_becomes_one_line():
    assert one_line("first\n  second\x07", 100) == r"first second\x07"
    assert one_line("x" * 11, 10) == "xxxxxxx..."


def test_every_error_of_the_agent_is_one_printable_line():
    assert str(InvalidRequestError("library says:\n\tno\x1b[0m")) == r"library says: no\x1b[0m"
    assert len(str(AgentError("x" * 10_000))) == 2000


def test_table_obeys_no_name(capsys: pytest.CaptureFixture[str]):
    print_table(("model", "ms"), [("\x1b[2Jnet", "1.0")])
    assert capsys.readouterr().out.splitlines() == ["model       ms", r"\x1b[2Jnet  1.0"]
