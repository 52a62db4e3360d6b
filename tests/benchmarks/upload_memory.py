"""How much the agent's memory grows while it takes a model of 500 MB, and while a worker measures it.

A fresh agent gets the model in chunks of 1 MiB from a generator, then measures it in search mode. What is
given is how far the resident memory of the agent's own process rose at its highest (VmHWM, reset before each
part) above what it was; its worker, which must hold the model, is another process. Asked: less than 32 MB.
"""

import argparse

import laboratory as lab
from large_models import MIB, LargeModel, PeakMemory

ASKED_MB = 32


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size-mb", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=3, help="fresh agents to ask")
    options = parser.parse_args()
    model = LargeModel(options.size_mb * 1_000_000)
    print(f"upload memory: a model of {model.size_bytes} bytes; {lab.machine()}")
    uploads, jobs = [], []
    for _ in range(options.repeats):
        with lab.agent("--gate-limit-s", "0", "--retries", "0") as agent:
            peak = PeakMemory(agent.process.pid)
            sha256 = model.upload(agent)
            uploads.append(peak.growth_mib() * MIB / 1e6)
            peak = PeakMemory(agent.process.pid)
            measured = lab.measure(agent, sha256, 1, mode=lab.SEARCH)
            jobs.append(peak.growth_mib() * MIB / 1e6)
            print(
                f"  agent {peak.before_kib * 1024 / 1e6:.1f} MB after the upload; the worker's peak beyond its runtime "
                f"{measured.memory.peak_bytes / 1e6:.0f} MB, cold load {measured.load_ms:.0f} ms"
            )
    for what, grown in (("while it is uploaded", uploads), ("while it is measured", jobs)):
        print(
            f"  the agent grows {what} by {max(grown):.1f} MB at most, of {options.repeats} agents "
            f"({', '.join(f'{figure:.1f}' for figure in grown)}); asked: less than {ASKED_MB} MB"
        )


if __name__ == "__main__":
    main()
