"""`edgenas-agent bench`: a measurement without a host, and mistakes on the command lines of bench and serve."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from agent_harness import CALL_LIMIT_S, conv_model, running_agent

ROUGH = ("--gate-limit-s", "0", "--retries", "0", "--measure-limit-s", "1", "--no-energy", "--threads", "1")
QUICK = ("--search-mode", *ROUGH)


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "device_agent", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=CALL_LIMIT_S,
    )


def refusal(*arguments: str | Path) -> str:
    """Run a command that is expected to refuse in one line, and return the line."""
    done = command(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("edgenas-agent: ")
    assert done.stderr.count("\n") == 1
    return done.stderr.strip()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "small.onnx"
    path.write_bytes(conv_model())
    return path


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def measured(model: Path, state: Path) -> dict:
    """What `bench --json` prints of the model."""
    done = command("bench", model, "--json", "--state-dir", state, *QUICK)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def printed(model: Path, state: Path, measured: dict) -> list[str]:
    """The lines that `bench` prints of the same model in a larger batch, with a profile."""
    # After the first, so that the history has them in this order.
    options = ("--input-shape", "image=2,3,16,16", "--profile", "--seed", "7", "--zeros")
    done = command("bench", model, "--state-dir", state, *options, *QUICK)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_measuring_ends_at_its_limit_in_whichever_mode(model: Path, tmp_path: Path):
    done = command("bench", model, "--json", "--state-dir", tmp_path, *ROUGH)
    assert done.returncode == 0, done.stderr
    measurement = json.loads(done.stdout)["measurement"]
    # Where nobody sets a limit it takes five turns with the reference model or more.
    assert len(measurement["canary_turns"]) == 2


def test_bench_prints_the_figures_as_json(measured: dict):
    measurement = measured["measurement"]
    latency = measurement["latency"]
    assert 0 < latency["median_ci_low_ms"] <= latency["median_ms"] <= latency["median_ci_high_ms"]
    assert latency["samples"] == len(measurement["samples_ms"]) >= 64
    assert measurement["load_ms"] > 0
    assert measurement["first_inference_ms"] > 0
    assert int(measurement["memory"]["peak_bytes"]) > 0
    assert "energy_mj" not in measurement
    assert measurement["energy_absent_reason"] == "energy was not asked for"


def test_bench_tells_what_was_run(measured: dict):
    assert measured["model_name"] == "small.onnx"
    assert measured["spec"]["runtime"] == "onnx"
    assert measured["spec"]["threads"] == 1
    assert measured["spec"]["input_shapes"] == [{"name": "image", "dimensions": ["1", "3", "16", "16"]}]
    assert measured["spec"]["mode"] == "MEASUREMENT_MODE_SEARCH"


def test_bench_prints_a_row_and_where_the_time_goes(printed: list[str]):
    header, row, *rest = printed
    assert header.split()[:4] == ["started", "(UTC)", "request", "id"]
    assert "small.onnx" in row
    profile = rest[next(at for at, line in enumerate(rest) if line.startswith("layer ")) :]
    assert profile[0].split() == ["layer", "operator", "ms", "calls"]
    assert any("Conv" in line and line.split()[-1] == "1" for line in profile[1:])
    assert "no energy: energy was not asked for" in rest


def test_bench_is_remembered_in_the_history(state: Path, measured: dict, printed: list[str]):
    done = command("history", "--state-dir", state, "--json")
    later, earlier = json.loads(done.stdout)
    assert earlier["request_id"] == measured["request_id"]
    assert earlier["measurement"]["latency"] == measured["measurement"]["latency"]
    assert later["spec"]["input_shapes"] == [{"name": "image", "dimensions": ["2", "3", "16", "16"]}]
    assert (later["spec"]["seed"], later["spec"]["input_data"]) == (7, "INPUT_DATA_ZEROS")
    assert later["spec"]["profile"] is True
    assert later["request_id"] in printed[1]


def test_bench_leaves_nothing_but_its_history_and_baselines(state: Path, measured: dict, printed: list[str]):
    left = {entry.name.split("-")[0] for entry in state.iterdir()}
    assert left <= {"history.sqlite", "baselines.json", "lock"}
    assert {"history.sqlite", "baselines.json"} <= left


def test_bench_prints_energy_of_a_formula_as_modelled(tmp_path: Path, model: Path):
    formula = tmp_path / "pi4.json"
    formula.write_text('{"picojoules_per_mac": 1000, "picojoules_per_byte": 0}')
    options = ("--power-source", "modelled", "--energy-model", formula, "--macs", "5000000")
    quick = [option for option in QUICK if option != "--no-energy"]
    done = command("bench", model, "--state-dir", tmp_path / "state", *options, *quick)
    assert (
        "energy: 5 mJ an inference (modelled, 1000 pJ/MAC + 0 pJ/byte (pi4.json))" in done.stdout.splitlines()
    )


def test_missing_model_is_a_misuse(tmp_path: Path):
    path = tmp_path / "none.onnx"
    assert refusal("bench", path, "--state-dir", tmp_path) == (
        f"edgenas-agent: Invalid value for 'MODEL': File '{path}' does not exist; see `edgenas-agent bench --help`"
    )


@pytest.mark.parametrize(
    ("arguments", "message", "command"),
    [
        (["benhc"], "No such command 'benhc'", "edgenas-agent"),
        (["--loud"], "No such option", "edgenas-agent"),
        (["bench"], "Missing argument 'MODEL'", "edgenas-agent bench"),
        (["doctor", "--loud"], "No such option", "edgenas-agent doctor"),
        (
            ["history", "--limit", "0"],
            "Invalid value for '--limit': 0 is not in the range",
            "edgenas-agent history",
        ),
        (["history", "\x1b[2J"], r"Got unexpected extra argument (\x1b[2J)", "edgenas-agent history"),
        (["serve", "--address"], "Option '--address' requires an argument", "edgenas-agent"),
    ],
)
def test_misuse_is_told_in_one_line_with_the_next_step(arguments: list[str], message: str, command: str):
    line = refusal(*arguments)
    assert line.startswith(f"edgenas-agent: {message}")
    assert line.endswith(f" see `{command} --help`")


def test_no_command_is_answered_with_the_help():
    done = command()
    assert "Commands:" in done.stdout + done.stderr
    assert "Error" not in done.stderr


def test_model_of_an_unknown_ending_needs_its_runtime(tmp_path: Path):
    path = tmp_path / "model.tflite"
    path.write_bytes(conv_model())
    assert refusal("bench", path, "--state-dir", tmp_path) == (
        "edgenas-agent: 'model.tflite' ends in none of .onnx, .pt, .pth, .ts; name its runtime with --runtime"
    )


def test_file_that_is_no_model_is_refused(tmp_path: Path):
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"not a model")
    assert refusal("bench", path, "--state-dir", tmp_path, *QUICK).startswith(
        "edgenas-agent: the file is no ONNX model: "
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--input-shape", "image=1,three,16,16"],
            "--input-shape has '1,three,16,16'; expected whole numbers",
        ),
        (["--input-shape", "1,3,16,16"], "names the input '' twice or not at all; name each once"),
        (["--input-shape", "image=0,3,16,16"], "gives 'image' the sizes [0, 3, 16, 16]; expected each to be"),
        (["--affinity", "0,0"], "spec.cpu_affinity is [0, 0]; name each processor once"),
        (["--affinity", "all"], "--affinity has 'all'; expected whole numbers with commas between"),
        (["--threads", "4096"], "spec.threads is 4096, this board has "),
        (["--provider", "abacus"], "spec.provider is 'abacus'; runtime onnx knows cpu, "),
        (["--input-shape", f"image={2**64}"], "a number among the options is too large: "),
        (["--seed", str(2**32)], "a number among the options is too large: "),
        (["--worker-python", "no-such-python"], "there is no program 'no-such-python' to start; check"),
        (
            ["--energy-model", "none.json"],
            "cannot read none.json: No such file or directory; expected a file",
        ),
    ],
)
def test_option_that_makes_no_sense_is_refused(tmp_path: Path, model: Path, options: list[str], message: str):
    assert message in refusal("bench", model, "--state-dir", tmp_path, *options)


def test_state_directory_of_a_serving_agent_is_refused(tmp_path: Path, model: Path):
    with running_agent(tmp_path) as agent:
        assert f"is in use by the agent with process id {agent.process.pid}; stop that agent" in refusal(
            "bench", model, "--state-dir", tmp_path, *QUICK
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--retries", "11"], "Invalid value for '--retries': 11 is not in the range 0<=x<=10"),
        (
            ["--gate-limit-s", "-1"],
            "Invalid value for '--gate-limit-s': -1.0 is not in the range x>=0",
        ),
        (
            ["--job-timeout-s", "0"],
            "Invalid value for '--job-timeout-s': 0.0 is not in the range x>0",
        ),
        (
            ["--cache-limit-mb", "0"],
            "Invalid value for '--cache-limit-mb': 0 is not in the range x>=1",
        ),
        (
            ["--root", "/no/such/board"],
            "Invalid value for '--root': Directory '/no/such/board' does not exist",
        ),
    ],
)
def test_serve_says_which_option_is_wrong(options: list[str], message: str):
    assert refusal("serve", *options) == f"edgenas-agent: {message}; see `edgenas-agent serve --help`"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON; expected {"),
        ('{"picojoules_per_mac": 1}', "has picojoules_per_mac; expected {"),
        (
            '{"picojoules_per_mac": -1, "picojoules_per_byte": 1}',
            "has no energy in it; expected coefficients",
        ),
    ],
)
def test_serve_refuses_coefficients_that_make_no_sense(tmp_path: Path, content: str, message: str):
    path = tmp_path / "coefficients.json"
    path.write_text(content)
    assert f"{path} {message}" in refusal("serve", "--state-dir", tmp_path, "--energy-model", path)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("modelled", "start the agent with the file of its coefficients, --energy-model FILE"),
        ("abacus", "no power source 'abacus'; expected one of ina2xx, "),
    ],
)
def test_serve_refuses_a_power_source_that_no_job_could_use(tmp_path: Path, source: str, message: str):
    assert message in refusal("serve", "--state-dir", tmp_path, "--power-source", source)


def test_serve_refuses_a_calibration_that_makes_no_sense(tmp_path: Path):
    path = tmp_path / "line.json"
    path.write_text('{"slope": "steep", "intercept_mw": 0}')
    assert f"{path} has slope = 'steep'; expected a finite number" in refusal(
        "serve", "--state-dir", tmp_path, "--power-calibration", path
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_model_that_may_not_be_read_is_a_misuse(tmp_path: Path):
    path = tmp_path / "secret.onnx"
    path.write_bytes(conv_model())
    path.chmod(0)
    assert "is not readable; see " in refusal("bench", path, "--state-dir", tmp_path)
