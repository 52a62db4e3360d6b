"""Text from callers, models and runtimes, made fit for one line of a message and for a terminal."""

SHOWN_CHARACTERS = 100


def printable(text: str) -> str:
    r"""Return text with what no terminal should be sent escaped as Python does: a line break becomes `\n`."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )


def shown(text: str) -> str:
    """Return text to be quoted in a message: printable, its end left out where it is long."""
    cut = text[:SHOWN_CHARACTERS]
    return printable(cut) + ("..." if len(text) > len(cut) else "")


def one_line(text: str, limit: int) -> str:
    """Return a message as one printable line of at most so many characters, line breaks as spaces."""
    line = printable(" ".join(part.strip() for part in text.splitlines()))
    return line if len(line) <= limit else line[: limit - 3] + "..."
