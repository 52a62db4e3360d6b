"""Python source as ruff and black lay it out, so that generated code needs no formatter."""

from collections.abc import Sequence

LINE_LENGTH = 100


def bracketed(opening: str, items: Sequence[str], closing: str, *, indent: int) -> str:
    """Return `opening + items + closing` on one line, or broken the way the formatters break it.

    Args:
        opening: Text up to and including the bracket, e.g. `self.conv = nn.Conv2d(`.
        items: What stands between the brackets, without commas.
        closing: The bracket and what follows it.
        indent: Spaces before opening. The first line of the result is not indented: the template does.
    """
    margin = " " * indent
    joined = ", ".join(items)
    if indent + len(opening) + len(joined) + len(closing) <= LINE_LENGTH or not items:
        return f"{opening}{joined}{closing}"
    if indent + 4 + len(joined) <= LINE_LENGTH:
        return f"{opening}\n{margin}    {joined}\n{margin}{closing}"
    lines = "".join(f"{margin}    {item},\n" for item in items)
    return f"{opening}\n{lines}{margin}{closing}"


def constant(name: str, items: Sequence[str]) -> str:
    """Return the definition of a module-level tuple."""
    if len(items) == 1:
        return f"{name} = ({items[0]},)"
    joined = f"{name} = ({', '.join(items)})"
    if len(joined) <= LINE_LENGTH:
        return joined
    # Unlike a call's arguments, a tuple that does not fit on one line gets one line an element at once.
    return "\n".join([f"{name} = (", *(f"    {item}," for item in items), ")"])


def string(text: str) -> str:
    """Return text as a string literal: in double quotes unless that needs more escapes."""
    quote = "'" if text.count('"') > text.count("'") else '"'
    # repr() escapes all but the quotes here: a text with a leading double quote is put in single ones.
    body = repr('"' + text)[2:-1].replace("\\'", "'")
    return quote + body.replace(quote, "\\" + quote) + quote
