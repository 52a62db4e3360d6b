"""Algorithms beside each other on a real search: handwritten digits, trained and measured on this machine.

    python tests/benchmarks/digits.py --algorithm ensemble --algorithm surrogate --trials 40 --seeds 5

Every algorithm gets as many trials, with the same seeds. Prints the hypervolume of what each found, as a share of the box
that all runs together span, and what `reinforce` was rewarded for its first and its last fifth of samples.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from controller.api import start
from controller.config import search_config
from controller.core.objective import Objective
from controller.core.trial import Trial
from controller.pareto.front import Box, FloatArray, minimised
from controller.replay import REPLAYABLE
from controller.store.store import Store

DEVICE = "local"


def rewards(store: Path, run_id: str) -> list[float]:
    opened = Store(str(store))
    try:
        return list(opened.curves(run_id).get("reward", {}).values())
    finally:
        opened.close()


def described(values: list[float]) -> str:
    fifth = max(1, len(values) // 5)
    first, last = statistics.fmean(values[:fifth]), statistics.fmean(values[-fifth:])
    return f"first fifth {first:+.3f}, last fifth {last:+.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--algorithm", action="append", choices=REPLAYABLE)
    parser.add_argument("--objective", action="append")
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    os.environ.setdefault("EDGENAS_LOCAL_AGENT", "--retries 0 --gate-limit-s 0 --measure-limit-s 2")
    algorithms = options.algorithm or list(REPLAYABLE)
    names = options.objective or ["accuracy", "latency_ms"]
    objectives = [Objective.parse(name, DEVICE) for name in names]
    found: dict[str, list[FloatArray]] = {algorithm: [] for algorithm in algorithms}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["EDGENAS_HOME"] = folder
        store = Path(folder) / "runs.db"
        for seed in range(options.seeds):
            for algorithm in algorithms:
                config = search_config(
                    {
                        "dataset": "digits",
                        "device": DEVICE,
                        "space": "chain",
                        "algorithm": algorithm,
                        "objectives": names,
                        "threads": 1,
                        "flagged": "keep",
                        "budget": str(options.trials),
                        "training": {"epochs": options.epochs},
                        "seed": seed,
                    }
                )
                begun = time.monotonic()
                result = start(config, str(store), lambda progress: None)
                usable: list[Trial] = [trial for trial in result.trials if trial.feasible]
                found[algorithm].append(minimised(objectives, usable))
                rewarded = rewards(store, result.run_id)
                learnt = f"  reward: {described(rewarded)}" if rewarded else ""
                print(
                    f"seed {seed} {algorithm:22} {len(usable)} trials, {time.monotonic() - begun:.0f} s{learnt}",
                    flush=True,
                )
    box = Box.around(np.concatenate([points for runs in found.values() for points in runs]))
    for algorithm, runs in found.items():
        shares = [box.covered(points) for points in runs]
        print(
            f"{algorithm:22} {statistics.fmean(shares):.4f}  " + " ".join(f"{share:.3f}" for share in shares)
        )


if __name__ == "__main__":
    main()
