"""How far the agent's median is from a bare loop of the runtime: at most 1 % is asked.

In every round each model is timed by a bare loop in a fresh process and by the agent, the order alternating,
so that a machine that becomes slower does so for both: the agent waits for no faster moment (`--gate-limit-s 0`),
as the bare loop does not. The figure is the median over the rounds of the ratio
agent / bare; its interval is that of the median by order statistics (95 %).
"""

import statistics

import laboratory as lab


def main() -> None:
    parser = lab.arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=12)
    options = parser.parse_args()
    ratios: dict[str, list[float]] = {}
    with lab.models(options.models) as models, lab.agent("--retries", "0", "--gate-limit-s", "0") as agent:
        keys = {model.name: agent.upload(model.data) for model in models}
        for number in range(options.rounds):
            for model in models:
                before = lab.bare_loop(model, options.threads, 3.0) if number % 2 else None
                found = lab.measure(agent, keys[model.name], options.threads)
                bare_ms = (before or lab.bare_loop(model, options.threads, 3.0)).median_ms
                ratios.setdefault(model.name, []).append(found.latency.median_ms / bare_ms)
                lab.log(
                    options.log,
                    model=model.name,
                    agent_ms=found.latency.median_ms,
                    bare_ms=bare_ms,
                    flags=lab.flags(found),
                )
    print(
        f"overhead: agent / bare loop, {options.threads} thread(s), {options.rounds} interleaved rounds; {lab.machine()}"
    )
    for name, values in ratios.items():
        low, high = median_interval(values)
        print(
            f"  {name:15} {100 * (statistics.median(values) - 1):+.2f} %   95 % interval "
            f"{100 * (low - 1):+.2f} to {100 * (high - 1):+.2f} %   single rounds {min(values):.3f} to {max(values):.3f}"
        )
    everything = [value for values in ratios.values() for value in values]
    print(
        f"  all models      {100 * (statistics.median(everything) - 1):+.2f} %   n = {len(everything)} pairs"
    )


def median_interval(values: list[float]) -> tuple[float, float]:
    """Return a 95 % interval of the median by order statistics."""
    from scipy.stats import binom

    ordered = sorted(values)
    below = int(binom.ppf(0.025, len(ordered), 0.5))
    return ordered[max(0, below - 1)], ordered[min(len(ordered) - 1, len(ordered) - below)]


if __name__ == "__main__":
    main()
