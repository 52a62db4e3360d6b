"""Differentiable search beside random architectures of the same space, trained alike, on one device.

    python tests/benchmarks/differentiable.py folder:PATH --train-images 6000 --epochs 5 --random 8

Random architectures are trained and measured first; the target is the median of their latencies unless --target-ms names
one. Then `darts` searches for it; what it proposes first is what counts. Prints the share of skips, the accuracy beside the
random ones' median, the latency beside the target, the time that the search took, and its curves.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

from controller.api import SearchResult, start
from controller.config import search_config
from controller.core.trial import Trial, TrialState
from controller.store.store import Store

DEVICE = "local"
LATENCY = f"latency_ms@{DEVICE}"


def searched(options: argparse.Namespace, store: Path, **settings: object) -> tuple[SearchResult, float]:
    config = search_config(
        {
            "dataset": options.dataset,
            "device": DEVICE,
            "space": "cell",
            "objectives": ["accuracy", "latency_ms"],
            "threads": 1,
            "flagged": "keep",
            "training": {"epochs": options.epochs, "train_images": options.train_images},
            "cell": {"channels": [options.channels], "cells": [options.cells]},
            "seed": options.seed,
            **settings,
        }
    )
    begun = time.monotonic()
    result = start(config, str(store), lambda progress: None)
    return result, time.monotonic() - begun


def described(trial: Trial) -> str:
    edges = {name: value for name, value in trial.architecture.items if value != "zero"}
    return f"{trial.values['accuracy']:.2%}, {trial.values[LATENCY]:.3f} ms  {edges}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset")
    parser.add_argument("--train-images", type=int, default=6000)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--supernet-epochs", type=int, default=20)
    parser.add_argument("--random", type=int, default=8)
    parser.add_argument("--target-ms", type=float)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--cells", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    os.environ.setdefault("EDGENAS_LOCAL_AGENT", "--retries 0 --gate-limit-s 0 --measure-limit-s 10")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["EDGENAS_HOME"] = folder
        store = Path(folder) / "runs.db"
        by_chance, _ = searched(options, store, algorithm="random", budget=str(options.random))
        complete = [trial for trial in by_chance.trials if trial.state is TrialState.COMPLETE]
        for trial in complete:
            print("random", described(trial), flush=True)
        target_ms = options.target_ms or statistics.median(trial.values[LATENCY] for trial in complete)
        result, seconds = searched(
            options,
            store,
            algorithm="darts",
            budget="1",
            constraints=[f"latency_ms<={target_ms}"],
            darts={"epochs": options.supernet_epochs},
        )
        found = result.trials[0]
        median = statistics.median(trial.values["accuracy"] for trial in complete)
        skips = sum(value == "skip_connect" for value in found.architecture.values.values())
        edges = sum(name.find("<-") > 0 for name in found.architecture.values)
        print("darts ", described(found))
        print(f"skips: {skips} of {edges}")
        print(f"accuracy over the median of {len(complete)} random: {found.values['accuracy'] - median:+.2%}")
        print(f"latency over the target of {target_ms:.3f} ms: {found.values[LATENCY] / target_ms:.3f}")
        print(f"seconds: {seconds:.0f}")
        for name, values in Store(str(store)).curves(result.run_id).items():
            print(name, " ".join(f"{value:.3f}" for value in values.values()))


if __name__ == "__main__":
    main()
