"""What the log holds of announcing; who hears it is in tests/end_to_end/test_discovery.py."""

import logging

import pytest

from device_agent.board.description import describe_board
from device_agent.serving.announcement import announced


def test_warning_of_the_library_is_one_line(caplog: pytest.LogCaptureFixture):
    # Only IPv4 is announced: on this address the library warns of nothing by itself.
    with announced("::1", 50151, describe_board(), lambda: "f" * 64):
        logging.getLogger("zeroconf").warning("Error with socket", exc_info=OSError("Network is unreachable"))
    assert caplog.text.count("\n") == 1
    assert "Error with socket" in caplog.text
