from pathlib import Path

import numpy as np
import pytest
from example_table import lines, write_table

from controller.core.errors import ConfigurationError
from controller.core.table import read_table


@pytest.mark.parametrize("name", ["table.csv", "table.csv.gz"])
def test_table_has_a_choice_for_each_column_of_that_name(tmp_path: Path, name: str):
    table = read_table(write_table(tmp_path / name))
    assert {choice.name: choice.options for choice in table.choices} == {
        "a": ("p", "q", "r", "s"),
        "b": ("w", "x", "y", "z"),
        "width": (8, 16, 32, 64),
    }
    assert len(table.architectures) == 64
    assert table.architectures[5]["width"] == 16


def test_table_tells_before_an_evaluation_what_analysis_would(tmp_path: Path):
    table = read_table(write_table(tmp_path / "table.csv"))
    assert set(table.before_evaluation()) == {"macs_m", "params_m"}


def test_empty_cell_is_a_figure_that_nobody_knows(tmp_path: Path):
    path = tmp_path / "table.csv"
    path.write_text("choice.a,accuracy\np,90\nq,\n")
    assert np.isnan(read_table(path).figures["accuracy"]).tolist() == [False, True]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no rows"),
        ("choice.a,accuracy\n", "has no rows"),
        ("a,accuracy\np,90\n", "has no column choice.NAME"),
        ("choice.a,accuracy\n\n", "has no rows"),
        ("choice.a,accuracy\n\np,90\n\np,91\n", "one architecture in lines 3 and 5"),
        ("choice.a,accuracy\n\np,90\n\nq,ninety\n", "accuracy = 'ninety' in line 5"),
        ("choice.a,accuracy\n" + "p" * 200_000 + ",90\n", "cannot be read in line 2: field larger"),
        ("choice.a,accuracy\np,90\np,91\n", "one architecture in lines 2 and 3"),
        ("choice.a,accuracy\np,ninety\n", "accuracy = 'ninety' in line 2"),
        ("choice.a,accuracy\np\n", "1 cells in line 2; expected 2"),
        ("choice.a,accuracy,accuracy\np,1,2\n", "'accuracy' twice"),
    ],
)
def test_what_is_no_table_is_refused_with_the_reason(tmp_path: Path, text: str, message: str):
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        read_table(path)


def test_files_that_cannot_be_read_are_refused(tmp_path: Path):
    (tmp_path / "broken.csv.gz").write_bytes(b"\x1f\x8b\x08\x00broken")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x01")
    damaged = bytearray(write_table(tmp_path / "whole.csv.gz").read_bytes())
    damaged[12:40] = b"\xff" * 28
    (tmp_path / "damaged.csv.gz").write_bytes(damaged)
    for name in ("missing.csv", "broken.csv.gz", "binary.csv", "damaged.csv.gz"):
        with pytest.raises(ConfigurationError, match=name):
            read_table(tmp_path / name)


def test_rows_of_a_table_keep_their_figures(tmp_path: Path):
    table = read_table(write_table(tmp_path / "table.csv"))
    kept = table.where(np.arange(64) == 7)
    assert kept.architectures == (table.architectures[7],)
    assert lines()[8].split(",")[6] == f"{kept.figures['latency_ms@pi4'][0]:.4f}"
