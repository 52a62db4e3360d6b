"""Every attack that docs/security.md lists has the test that it names."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[2]
GUIDE = TESTS.parent / "docs/security.md"


def test_every_attack_names_a_test_that_is_there():
    table = GUIDE.read_text(encoding="utf-8").split("## Attacks")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 25
    missing = []
    for attack, _, named in rows:
        entries = re.findall(r"`([^`]+)`", named)
        assert entries, attack
        for entry in entries:
            file, _, function = entry.partition("::")
            # An ellipsis stands for the file of a row above.
            files = list(TESTS.rglob("test_*.py" if file == "…" else file))
            wanted = f"def {function}(" if function else ""
            if not any(wanted in path.read_text(encoding="utf-8") for path in files):
                missing.append(entry)
    assert missing == []
