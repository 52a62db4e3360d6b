"""What a job does about energy before it runs, and who watches the power beside it."""

from dataclasses import replace
from pathlib import Path

import pytest
from measuring_lab import SPEC
from sensor_trees import HWMON, break_file, build_battery, build_ina2xx, build_rapl, write

from device_agent.benchmark import EnergyReading
from device_agent.errors import SensorError
from device_agent.measuring.power import PowerOptions, PowerPlan, plan_power
from device_agent.sensors.catalogue import known_sources
from device_agent.sensors.modelled import EnergyModel
from device_agent.sensors.watch import PowerWatch

FORMULA = EnergyModel(picojoules_per_mac=2.0, picojoules_per_byte=100.0, file="pi4.json")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(bytes(1000))
    return path


def plan(root: Path, model: Path, options: PowerOptions | None = None, **spec: object) -> PowerPlan:
    asked = replace(SPEC, **({"energy": True} | spec))
    return plan_power(root, options or PowerOptions(), asked, model, lambda seconds: None)


def told(plan: PowerPlan) -> tuple[EnergyReading | None, str]:
    """What is known without a pass: no worker is needed to tell it."""
    assert plan.meter is None
    return plan.unmeasured


def test_job_that_asks_for_no_energy_has_none(tmp_path: Path, model: Path):
    build_ina2xx(tmp_path)
    assert told(plan(tmp_path, model, energy=False)) == (None, "energy was not asked for")


def test_best_source_is_opened(tmp_path: Path, model: Path):
    build_battery(tmp_path)
    build_ina2xx(tmp_path)
    opened = plan(tmp_path, model)
    assert opened.meter.covers == "ina226 at 1-0040, shunt 100000 µΩ"
    opened.close()


def test_request_overrides_the_agents_own_source(tmp_path: Path, model: Path):
    build_battery(tmp_path)
    build_ina2xx(tmp_path)
    own = PowerOptions(source="ina2xx")
    assert plan(tmp_path, model, own, power_source="battery").meter.covers == "BAT0"
    assert plan(tmp_path, model, own).meter.covers.startswith("ina226")


def test_unknown_source_is_the_reason(tmp_path: Path, model: Path):
    energy, reason = told(plan(tmp_path, model, power_source="abacus"))
    assert energy is None
    assert reason.startswith("no power source 'abacus'; expected one of ")


def test_sensor_that_cannot_be_read_is_the_reason(tmp_path: Path, model: Path):
    build_ina2xx(tmp_path, shunt_resistor="0")
    energy, reason = told(plan(tmp_path, model))
    assert energy is None
    assert reason.startswith("no power source can be read: the shunt of the ina226, ")


def test_sensor_of_the_processor_says_nothing_of_a_model_on_the_gpu(tmp_path: Path, model: Path):
    build_rapl(tmp_path)
    energy, reason = told(plan(tmp_path, model, provider="CUDAExecutionProvider"))
    assert energy is None
    assert "rapl" not in reason


def test_formula_needs_no_pass(tmp_path: Path, model: Path):
    energy, reason = told(
        plan(tmp_path, model, PowerOptions(energy_model=FORMULA), power_source="modelled", macs=5_000_000)
    )
    # 5,000,000 MACs of 2 pJ and 1,000 bytes of 100 pJ are 10.1 µJ.
    assert energy.net_mj == pytest.approx(0.0101)
    assert (energy.modelled, energy.gross_mj, energy.idle_mw, energy.active_mw) == (True, None, None, None)
    assert energy.calibration == "2 pJ/MAC + 100 pJ/byte (pi4.json)"
    assert reason == ""


def test_agents_own_source_may_be_the_formula(tmp_path: Path, model: Path):
    options = PowerOptions(source="modelled", energy_model=FORMULA)
    energy, _ = told(plan(tmp_path, model, options, macs=1_000_000))
    assert energy.net_mj == pytest.approx(0.0021)


def test_formula_without_macs_is_absent(tmp_path: Path, model: Path):
    energy, reason = told(plan(tmp_path, model, PowerOptions(source="modelled", energy_model=FORMULA)))
    assert energy is None
    assert "needs the multiply-accumulates of the model" in reason


def test_formula_that_the_agent_has_not_is_absent(tmp_path: Path, model: Path):
    energy, reason = told(plan(tmp_path, model, power_source="modelled", macs=5))
    assert energy is None
    assert "start the agent with the file of its coefficients" in reason


def test_formula_is_not_used_unasked_but_told(tmp_path: Path, model: Path):
    energy, reason = told(plan(tmp_path, model, PowerOptions(energy_model=FORMULA), macs=5))
    assert energy is None
    assert reason.startswith("no power sensor (looked for ")
    assert reason.endswith(
        "; or name the power source 'modelled', the formula 2 pJ/MAC + 100 pJ/byte (pi4.json)"
    )


def test_formula_is_no_answer_to_who_asks_for_a_sensor(tmp_path: Path, model: Path):
    energy, reason = told(
        plan(tmp_path, model, PowerOptions(energy_model=FORMULA), macs=5, power_source="battery")
    )
    assert energy is None
    assert "name the power source" not in reason


def test_request_may_name_a_sensor_where_the_formula_is_the_agents_own_source(tmp_path: Path, model: Path):
    build_battery(tmp_path)
    options = PowerOptions(source="modelled", energy_model=FORMULA)
    opened = plan(tmp_path, model, options, macs=5, power_source="battery")
    assert opened.meter.covers == "BAT0"
    opened.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (PowerOptions(source="abacus"), "no power source 'abacus'; expected one of ina2xx, "),
        (
            PowerOptions(source="modelled"),
            "start the agent with the file of its coefficients, --energy-model FILE",
        ),
    ],
)
def test_source_that_no_job_could_use_is_found_before_any(options: PowerOptions, message: str):
    with pytest.raises(SensorError, match=message):
        options.check()


@pytest.mark.parametrize(
    "options",
    [
        PowerOptions(),
        PowerOptions(energy_model=FORMULA),
        PowerOptions(source="modelled", energy_model=FORMULA),
        PowerOptions(source="ina2xx:1-0041"),
    ],
)
def test_source_that_some_job_may_use_passes(options: PowerOptions):
    """Also one that the board does not have: a battery may be unplugged, a chip be added later."""
    options.check()


def test_watch_reads_the_power_again_and_again(tmp_path: Path):
    build_ina2xx(tmp_path)
    watch = PowerWatch(tmp_path, "", known_sources())
    assert watch.power_mw() == 3500.0
    write(tmp_path, {f"{HWMON}/curr1_input": "100"})
    assert watch.power_mw() == 500.0
    watch.close()


def test_watch_of_a_board_without_a_sensor_tells_nothing(tmp_path: Path):
    watch = PowerWatch(tmp_path, "", known_sources())
    assert watch.power_mw() is None
    watch.close()


def test_watch_of_another_source_than_there_is_tells_nothing(tmp_path: Path):
    build_ina2xx(tmp_path)
    assert PowerWatch(tmp_path, "battery", known_sources()).power_mw() is None


def test_watch_reads_a_sensor_where_the_formula_is_the_agents_own_source(tmp_path: Path):
    build_ina2xx(tmp_path)
    watch = PowerWatch(tmp_path, "modelled", known_sources())
    assert watch.power_mw() == 3500.0
    watch.close()


def test_watch_outlives_a_reading_that_fails(tmp_path: Path):
    build_ina2xx(tmp_path)
    watch = PowerWatch(tmp_path, "ina2xx", known_sources())
    current = tmp_path / HWMON / "curr1_input"
    break_file(current)
    assert watch.power_mw() is None
    current.rmdir()
    current.write_text("700\n")
    assert watch.power_mw() == 3500.0
