"""What the agent itself costs: time beyond a job's own, and memory and processor while idle.

Jobs: one model again and again, cached, full mode, one attempt, back to back. Overhead of a job = time from asking
to the result, less the gate with the pauses of the timed part, the warm-up and the timed samples; the reference
model's inferences, which the protocol asks for, are told apart. Asked: under 1 s.

Idle: the agent and all its processes after the waiting worker was let go (60 s without a job). Asked: under
60 MB resident, under 1 % of a core.
"""

import statistics
import time

import laboratory as lab
import psutil

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
                f"largest {max(row[0] for row in rows):.2f} s), of which the reference model's inferences {canary:.2f} s"
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
    """Return what a job took beyond its own parts in seconds, and how much of it the reference model's inferences."""
    begin_s = time.monotonic()
    found = lab.measure(agent, sha256, threads)
    took_s = time.monotonic() - begin_s
    own_s = (sum(found.warmup_ms) + sum(found.samples_ms) + sum(found.groups_ms)) / 1e3 + found.gate_wait_s
    canary_s = sum(sum(turn.latencies_ms) for turn in found.canary_turns) / 1e3
    return took_s - own_s, canary_s


if __name__ == "__main__":
    main()
