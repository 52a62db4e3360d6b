"""How the generator writes literals and breaks lines."""

import ast
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from controller.codegen.layout import bracketed, constant, string


@given(text=st.text())
def test_string_literal_means_the_text(text: str) -> None:
    assert ast.literal_eval(string(text)) == text


def test_string_is_in_double_quotes_unless_that_takes_more_escapes() -> None:
    assert [string(text) for text in ("cat", "cat's", 'a "cat"', "it's a \"cat\"'s", "a\\b\n")] == [
        '"cat"',
        '"cat\'s"',
        "'a \"cat\"'",
        '"it\'s a \\"cat\\"\'s"',
        '"a\\\\b\\n"',
    ]


def test_class_names_are_laid_out_as_the_formatter_does() -> None:
    names = [
        "cat's",
        'the "cat"',
        "back\\slash",
        "ünïcode",
        "tab\t",
        *(f"class {index}" for index in range(9)),
    ]
    text = f"{constant('CLASSES', [string(name) for name in names])}\n"

    done = subprocess.run(
        [sys.executable, "-m", "ruff", "format", "--isolated", "--line-length", "100", "-"],
        input=text,
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == text
    assert text.count("\n") == len(names) + 2


def test_bracketed_breaks_only_what_does_not_fit() -> None:
    two, wide = ["a" * 50, "b" * 40], ["a" * 50, "b" * 50]

    assert bracketed("f(", two, ")", indent=4) == f"f({two[0]}, {two[1]})"
    assert bracketed("call(", two, ")", indent=4) == f"call(\n        {two[0]}, {two[1]}\n    )"
    assert bracketed("f(", wide, ")", indent=4) == f"f(\n        {wide[0]},\n        {wide[1]},\n    )"
