"""`edgenas compare`."""

import json
from pathlib import Path

import pytest
from example_table import write_table
from PIL import Image
from typer.testing import CliRunner

from controller.cli.main import app
from controller.core.errors import ConfigurationError


def printed(path: Path, *options: str) -> str:
    objectives = ("--objective", "accuracy", "--objective", "latency_ms@pi4")
    result = CliRunner().invoke(app, ["compare", str(path), *objectives, *options], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_table(tmp_path / "table.csv.gz")


def test_compare_prints_json_a_row_for_each_algorithm_and_checkpoint(table: Path):
    options = (
        "--algorithm",
        "random",
        "--algorithm",
        "local",
        "--evaluations",
        "60",
        "--seeds",
        "2",
        "--json",
    )
    rows = json.loads(printed(table, *options))
    assert [(row["algorithm"], row["evaluations"]) for row in rows] == [
        (name, count) for name in ("random", "local") for count in (25, 50, 60)
    ]
    assert all(
        set(row) == {"algorithm", "evaluations", "hypervolume_mean", "hypervolume_std", "seconds_per_ask"}
        for row in rows
    )
    assert all(0 < row["hypervolume_mean"] <= 1 for row in rows)


def test_compare_gives_the_same_figures_for_the_same_seeds(table: Path):
    options = ("--algorithm", "surrogate", "--evaluations", "30", "--seeds", "2", "--json")
    first, second = (json.loads(printed(table, *options)) for _ in range(2))
    assert [row["hypervolume_mean"] for row in first] == [row["hypervolume_mean"] for row in second]


def test_compare_prints_a_table_and_draws_a_picture(table: Path, tmp_path: Path):
    picture = tmp_path / "comparison.png"
    shown = printed(
        table, "--algorithm", "evolution", "--evaluations", "30", "--seeds", "2", "--plot", str(picture)
    )
    assert "n = 25" in shown
    assert "regret after 30" in shown
    with Image.open(picture) as image:
        assert image.format == "PNG"
        assert len(image.getcolors(maxcolors=2**24) or ()) > 10


def test_compare_refuses_a_plot_that_is_no_png(table: Path, tmp_path: Path):
    with pytest.raises(ConfigurationError, match=r"expected a name that ends in \.png"):
        CliRunner().invoke(
            app,
            ["compare", str(table), "--objective", "accuracy", "--plot", str(tmp_path / "a.pdf")],
            catch_exceptions=False,
        )


def test_compare_refuses_what_cannot_search_a_table_before_anything_runs(
    table: Path, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(ConfigurationError, match="'darts' trains one network with all options of a space"):
        printed(table, "--algorithm", "random", "--algorithm", "darts", "--evaluations", "30")
    assert "random" not in capsys.readouterr().out
