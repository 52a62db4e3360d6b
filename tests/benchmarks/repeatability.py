"""Whether two runs of one model agree.

Pairs of consecutive jobs, the models in turn. Asked: of the pairs in which neither run carries a flag, medians
within 1 % in 95 %; by the drift-corrected latency, within 3 % in 95 % of all pairs.
"""

import math

import laboratory as lab


def main() -> None:
    parser = lab.arguments(__doc__)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--retries", type=int, default=2)
    options = parser.parse_args()
    pairs = []
    with lab.models(options.models) as models, lab.agent("--retries", str(options.retries)) as agent:
        keys = {model.name: agent.upload(model.data) for model in models}
        for number in range(options.pairs):
            model = models[number % len(models)]
            runs = [lab.measure(agent, keys[model.name], options.threads) for _ in range(2)]
            pairs.append((model.name, runs))
            for run in runs:
                lab.log(
                    options.log, model=model.name, pair=number, median_ms=run.latency.median_ms,
                    corrected_ms=run.drift_corrected_ms, samples=run.latency.samples, flags=lab.flags(run),
                    reasons=[entry.reason for entry in run.flag_reasons],
                    discarded=[reason.reason for attempt in run.discarded_attempts for reason in attempt.flag_reasons],
                    canary=[run.canary.median_ms, run.canary.baseline_ms], waited_s=run.gate_wait_s,
                )  # fmt: skip
    print(
        f"repeatability: {len(pairs)} pairs, {options.threads} thread(s), {options.retries} retries; {lab.machine()}"
    )
    clean = [runs for _, runs in pairs if not lab.flags(runs[0]) and not lab.flags(runs[1])]
    uncontaminated = [runs for _, runs in pairs if not any(map(lab.contaminating, runs))]
    everything = [runs for _, runs in pairs]
    report("pairs without a flag, raw medians", clean, raw, 0.01)
    report("pairs without a contaminating flag, raw medians", uncontaminated, raw, 0.01)
    report("all pairs, drift-corrected", everything, corrected, 0.03)
    raw_runs = sum(not run.HasField("drift_corrected_ms") for runs in everything for run in runs)
    print(
        f"    of which {raw_runs} of {2 * len(pairs)} runs have no corrected figure and count with their raw one"
    )
    report("all pairs, raw medians", everything, raw, 0.03)
    counts: dict[str, int] = {}
    for runs in everything:
        for flag in [flag for run in runs for flag in lab.flags(run)]:
            counts[flag] = counts.get(flag, 0) + 1
    print(f"  flags on {2 * len(pairs)} runs: {counts or 'none'}")
    for model in dict.fromkeys(name for name, _ in pairs):
        differences = [abs(math.log(corrected(a) / corrected(b))) for name, (a, b) in pairs if name == model]
        print(
            f"  {model:15} largest corrected difference {100 * max(differences):.1f} % of {len(differences)} pairs"
        )


def raw(run) -> float:
    return run.latency.median_ms


def corrected(run) -> float:
    return run.drift_corrected_ms if run.HasField("drift_corrected_ms") else run.latency.median_ms


def report(what: str, pairs, figure, bound: float) -> None:
    differences = sorted(abs(math.log(figure(first) / figure(second))) for first, second in pairs)
    if not differences:
        print(f"  {what}: none of that kind")
        return
    within = sum(difference <= bound for difference in differences)
    p95 = differences[min(len(differences) - 1, math.ceil(0.95 * len(differences)) - 1)]
    print(
        f"  {what}: {within} of {len(differences)} within {100 * bound:g} % ({100 * within / len(differences):.0f} %), "
        f"95th percentile of the difference {100 * p95:.2f} %"
    )


if __name__ == "__main__":
    main()
