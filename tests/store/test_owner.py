from dataclasses import replace

import pytest

from controller.store.owner import Owner


def test_owner_is_read_back_as_written():
    owner = Owner.this_process()
    assert Owner.parse(str(owner)) == owner


def test_nobody_is_no_owner():
    assert Owner.parse("") is None


def test_this_process_is_not_gone():
    assert not Owner.this_process().gone


def test_earlier_process_of_the_same_number_is_gone():
    assert replace(Owner.this_process(), started="1").gone


def test_number_that_no_process_has_is_gone():
    # Linux gives out numbers up to 2^22 at most.
    assert replace(Owner.this_process(), pid=2**22 + 1).gone


@pytest.mark.parametrize("pid", [1, 2**22 + 1])
def test_process_of_another_machine_is_not_known_to_be_gone(pid: int):
    assert not replace(Owner.this_process(), machine="another", pid=pid).gone


@pytest.mark.parametrize("pid", [1, 2**22 + 1])
def test_process_of_another_container_is_not_known_to_be_gone(pid: int):
    assert not replace(Owner.this_process(), container="pid:[1]", pid=pid).gone


def test_process_from_before_the_machine_was_started_again_is_gone():
    assert replace(Owner.this_process(), boot="an earlier one").gone
