"""What the agent itself costs: time beyond a job's own, and memory and processor while idle.

Jobs: one model again and again, cached, full mode, one attempt, back to back. Overhead of a job = time from asking
to the result, less the gate, the warm-up and the timed samples; the reference model's turns, which the protocol
asks for, are told apart. Asked: under 1 s.

Idle: the agent and all its processes after the waiting worker was let go (60 s without a job). Asked: under
60 MB resident, under 1 % of a core.
"""

import statistics
import time

import laboratory as lab
import psutil
from edgenas.v1 import benchmark_pb2

# The agent lets its waiting worker go after a minute.
SETTLE_S = 65
WATCH_S = 60


def main() -> None:
    parser = lab.arguments(__doc__)
    parser.add_argument("--jobs", type=int, default=10)
    options = parser.parse_args()
    with lab.models(options.models) as models, lab.agent("--retries", "0") as agent:
        print(f"footprint: {options.threads} thread(s); {lab.machine()}")
        for model in models:
            sha256 = agent.upload(model.data)
            rows = [overhead_s(agent, sha256, options.threads) for _ in range(options.jobs)]
            total = statistics.median(row[0] for row in rows)
            canary = statistics.median(row[1] for row in rows)
            print(
                f"  {model.name:15} {total:.2f} s a job beyond gate, warm-up and samples (n = {len(rows)}, "
                f"largest {max(row[0] for row in rows):.2f} s), of which the reference model {canary:.2f} s"
            )
        time.sleep(SETTLE_S)
        processes = [psutil.Process(agent.process.pid)]
        processes += processes[0].children(recursive=True)
        begin, begin_s = sum(map(cpu_s, processes)), time.monotonic()
        time.sleep(WATCH_S)
        used = sum(map(cpu_s, processes)) - begin
        resident = sum(process.memory_info().rss for process in processes)
        print(
            f"  idle: {resident / 1e6:.1f} MB resident in {len(processes)} process(es), "
            f"{100 * used / (time.monotonic() - begin_s):.2f} % of a core over {WATCH_S} s"
        )


def cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def overhead_s(agent: lab.Agent, sha256: str, threads: int) -> tuple[float, float]:
    """Return what a job took beyond its own parts in seconds, and how much of it the reference model."""
    begin = time.monotonic()
    canary_begin = canary = 0.0
    for event in lab.ask(agent, sha256, threads):
        if event.progress.phase == benchmark_pb2.BENCHMARK_PHASE_CANARY:
            canary_begin = time.monotonic()
        if event.progress.phase == benchmark_pb2.BENCHMARK_PHASE_MEASURE:
            canary = time.monotonic() - canary_begin
            measure_begin = time.monotonic()
    took = time.monotonic() - begin
    found = event.result.measurement
    samples_s = sum(found.samples_ms) / 1e3
    grouped = found.grouped
    samples_s += grouped.median_ms * grouped.inferences_per_group * grouped.groups / 1e3
    canary += time.monotonic() - measure_begin - samples_s
    return took - found.gate_wait_s - sum(found.warmup_ms) / 1e3 - samples_s, canary


if __name__ == "__main__":
    main()
