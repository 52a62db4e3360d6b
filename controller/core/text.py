"""Text from boards, files and users, made fit for a terminal."""


def printable(text: str) -> str:
    r"""Return text with what no terminal should be sent escaped as Python does: a line break becomes `\n`."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )
