"""What operators cost on a device, and the best options that a latency leaves room for."""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from controller.algorithms.archive import IntArray
from controller.core.learning import FloatVector
from controller.core.mixing import Mixture
from controller.core.network import INPUT, Layer, Network
from controller.core.primitives import Primitive, Shape

_BINS = 400  # that a budget is divided into


def term_layers(network: Network) -> dict[str, dict[str, list[tuple[Layer, ...]]]]:
    """Return the layers that each term is made of, by mixture and term: a tuple for each mixture of one name.

    They are those that nothing but the term reads. A term without any passes its input on.

    Args:
        network: A supernet.
    """
    layers = {layer.name: layer for layer in network.layers}
    readers = Counter(source for layer in network.layers for source in set(layer.inputs))
    found: dict[str, dict[str, list[tuple[Layer, ...]]]] = {}
    for layer in network.layers:
        if not isinstance(layer.primitive, Mixture):
            continue
        of_mixture = found.setdefault(layer.primitive.name, {})
        for term, source in zip(layer.primitive.terms, layer.inputs, strict=True):
            own: list[Layer] = []
            waiting = [source]
            while waiting:
                name = waiting.pop()
                shared = name == INPUT or readers[name] > 1 or isinstance(layers[name].primitive, Mixture)
                if not shared:
                    own.append(layers[name])
                    waiting += layers[name].inputs
            of_mixture.setdefault(term, []).append(tuple(own))
    return found


def term_costs(
    terms: Mapping[str, Mapping[str, Sequence[tuple[Layer, ...]]]], layers_ms: Mapping[str, float]
) -> dict[str, dict[str, float]]:
    """Return what each term costs, by mixture and term, summed over all mixtures of one name.

    Equal operations on equal shapes cost the same, their mean: a runtime does what two edges do alike to one input only
    once, and then tells of one of them.

    Args:
        terms: What `term_layers` returns.
        layers_ms: Time of layers by name, those alone that the device tells of.
    """
    times: dict[_Signature, list[float]] = {}
    for of_mixture in terms.values():
        for layers in itertools.chain.from_iterable(of_mixture.values()):
            told = [layers_ms[layer.name] for layer in layers if layer.name in layers_ms]
            if told:
                times.setdefault(_signature(layers), []).append(sum(told))
    means = {signature: float(np.mean(values)) for signature, values in times.items()}
    return {
        name: {
            term: sum(means.get(_signature(layers), 0.0) for layers in instances)
            for term, instances in of_mixture.items()
        }
        for name, of_mixture in terms.items()
    }


_Signature = tuple[tuple[Primitive, tuple[Shape, ...]], ...]


def _signature(layers: Sequence[Layer]) -> _Signature:
    return tuple((layer.primitive, layer.input_shapes) for layer in layers)


def best_options(
    merits: Sequence[FloatVector],
    costs: Sequence[FloatVector],
    counted: Sequence[IntArray],
    most_counted: int,
) -> list[int] | None:
    """Return the option of each choice whose merits have the largest sum, within a budget.

    Dynamic programming over choices, costs rounded up to 1/400 of the budget.

    Args:
        merits: For each choice, of each option.
        costs: For each choice, the share of the budget that each option takes; none below 0.
        counted: For each choice, 1 for options of which there may only be so many, else 0.
        most_counted: How many.

    Returns:
        None where nothing fits.
    """
    bins = [np.ceil(np.minimum(cost * _BINS, _BINS + 1) - 1e-9).astype(int) for cost in costs]
    best = np.zeros((_BINS + 1, most_counted + 1))  # of the choices from here on, by what is left
    picks: list[IntArray] = []
    for merit, size, extra in reversed(list(zip(merits, bins, counted, strict=True))):
        values = np.full((len(merit), *best.shape), -np.inf)
        for place in range(len(merit)):
            b, c = int(size[place]), int(extra[place])
            if b <= _BINS and c <= most_counted:
                values[place, b:, c:] = merit[place] + best[: _BINS + 1 - b, : most_counted + 1 - c]
        picks.append(values.argmax(axis=0))
        best = values.max(axis=0)
    if not np.isfinite(best[_BINS, most_counted]):
        return None
    left, allowed, chosen = _BINS, most_counted, []
    for pick, size, extra in zip(reversed(picks), bins, counted, strict=True):
        place = int(pick[left, allowed])
        chosen.append(place)
        left, allowed = left - int(size[place]), allowed - int(extra[place])
    return chosen
