import importlib.metadata
import os
import platform
import time
from pathlib import Path

import grpc
import onnxruntime
import pytest
from agent_harness import CALL_LIMIT_S, FULL, Agent, conv_model, running_agent, spec, until, until_measuring
from edgenas.v1 import device_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

SERVICES = {
    "edgenas.v1.DeviceService",
    "edgenas.v1.ModelService",
    "edgenas.v1.BenchmarkService",
}


def watch_telemetry(agent: Agent, interval_ms: int):
    request = device_pb2.WatchTelemetryRequest(interval_ms=interval_ms)
    return agent.devices.WatchTelemetry(request, timeout=CALL_LIMIT_S)


def test_device_is_described(agent: Agent):
    device = agent.describe()
    assert device.protocol_version == 1
    assert device.hostname == platform.node()
    assert device.machine == platform.machine()
    assert device.kernel_release == platform.release()
    assert device.logical_cores == os.cpu_count()
    assert 1 <= device.physical_cores <= device.logical_cores
    assert device.memory_bytes == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert device.model_size_limit_bytes == 2 << 30
    assert [(runtime.name, runtime.version) for runtime in device.runtimes] == [
        ("onnx", onnxruntime.__version__),
        ("torchscript", importlib.metadata.version("torch")),
    ]
    assert "CPUExecutionProvider" in device.runtimes[0].providers


def test_formula_that_the_agent_was_not_given_is_no_source(agent: Agent):
    assert "modelled" not in [source.name for source in agent.describe().power_sources]


def test_boot_id_is_that_of_the_kernel(agent: Agent):
    device = agent.describe()
    assert device.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def test_telemetry_is_sampled_at_the_interval(agent: Agent):
    stream = watch_telemetry(agent, 100)
    first, second = next(stream), next(stream)
    stream.cancel()
    assert not first.HasField("cpu_percent")
    assert 0 <= second.cpu_percent <= 100
    assert second.available_memory_bytes > 0
    assert (second.time.ToNanoseconds() - first.time.ToNanoseconds()) >= 90_000_000


def test_telemetry_pauses_while_a_model_is_timed(agent: Agent, model: str):
    running = agent.watch(model, spec(mode=FULL), request_id="quiet")
    until_measuring(running)
    stream = watch_telemetry(agent, 100)
    time.sleep(0.5)
    cancelled_ns = time.time_ns()
    agent.cancel("quiet")
    until(running, "failure")
    first = next(stream)
    stream.cancel()
    assert first.queued_jobs == 0
    assert first.time.ToNanoseconds() > cancelled_ns


def test_no_sensor_is_asked_by_callers_while_a_model_is_timed(tmp_path: Path):
    """A Raspberry Pi's sensors are asked by a program, which takes a core while it runs."""
    asked = tmp_path / "asked"
    tool = tmp_path / "root/usr/bin/vcgencmd"
    tool.parent.mkdir(parents=True)
    tool.write_text(f"#!/bin/sh\necho $* >> '{asked}'\nexit 1\n")
    tool.chmod(0o755)

    def power_readings() -> int:
        return asked.read_text().count("pmic_read_adc")

    with running_agent(tmp_path / "state", "--root", str(tmp_path / "root")) as agent:
        agent.describe()
        running = agent.watch(agent.upload(conv_model()), spec(mode=FULL), request_id="quiet")
        until_measuring(running)
        before = power_readings()
        stream = watch_telemetry(agent, 100)
        assert agent.describe().power_sources
        time.sleep(0.5)
        assert power_readings() == before
        agent.cancel("quiet")
        next(stream)
        stream.cancel()
        assert power_readings() > before


def test_telemetry_interval_is_checked(agent: Agent):
    with pytest.raises(grpc.RpcError) as caught:
        next(watch_telemetry(agent, 99))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "interval_ms is 99; ask for at least 100" in caught.value.details()


@pytest.mark.parametrize("service", ["", *sorted(SERVICES)])
def test_health_is_serving(agent: Agent, service: str):
    stub = health_pb2_grpc.HealthStub(agent.channel)
    answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=CALL_LIMIT_S)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_reflection_lists_the_services(agent: Agent):
    stub = reflection_pb2_grpc.ServerReflectionStub(agent.channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = stub.ServerReflectionInfo(iter([request]), timeout=CALL_LIMIT_S)
    names = {service.name for service in answer.list_services_response.service}
    assert names >= SERVICES
    assert "grpc.health.v1.Health" in names
