"""The outcome of one look at the board."""

import enum
from dataclasses import dataclass


class Verdict(enum.Enum):
    """How good it is. The values are what is printed."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One row of the doctor's table; `remedy` is empty where there is nothing to do."""

    subject: str
    verdict: Verdict
    finding: str
    remedy: str = ""


def passed(subject: str, finding: str) -> Check:
    """Return a check that found nothing wrong."""
    return Check(subject=subject, verdict=Verdict.PASS, finding=finding)


def warned(subject: str, finding: str, remedy: str) -> Check:
    """Return a check that found what makes figures worse."""
    return Check(subject=subject, verdict=Verdict.WARN, finding=finding, remedy=remedy)


def failed(subject: str, finding: str, remedy: str) -> Check:
    """Return a check that found what makes figures worthless or impossible."""
    return Check(subject=subject, verdict=Verdict.FAIL, finding=finding, remedy=remedy)
