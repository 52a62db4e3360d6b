"""A distribution over architectures that learns: a two-layer LSTM that makes one choice after the other.

Source: Zoph and Le 2017, Neural architecture search with reinforcement learning, section 3.1. We differ in that
choices with the same options share their embedding and their output layer, told apart by an embedding of their
place, and in that the policy is conditioned on how much each objective matters.
"""

from collections.abc import Sequence

import torch
from torch import nn

from controller.core.architecture import Choice

_HIDDEN = 48
_LAYERS = 2


class Policy(nn.Module):
    """Probability of each option of each choice, given the options before it and the weights of the objectives.

    Args:
        choices: In the order in which they are made.
        objectives: Number of objectives.
        seed: Of the initial weights.
    """

    def __init__(self, choices: Sequence[Choice], objectives: int, seed: int) -> None:
        super().__init__()
        kinds = list(dict.fromkeys(_kind(choice) for choice in choices))
        self._kinds = [kinds.index(_kind(choice)) for choice in choices]
        with torch.device("meta"):
            self.places = nn.Embedding(len(choices), _HIDDEN)
            self.weighting = nn.Linear(objectives, _HIDDEN)
            # What is chosen last is never read.
            self.options = nn.ModuleDict(
                {
                    str(kind): nn.Embedding(len(kinds[kind][1]), _HIDDEN)
                    for kind in sorted({*self._kinds[:-1]})
                }
            )
            self.outputs = nn.ModuleList(nn.Linear(_HIDDEN, len(options)) for _, options in kinds)
            self.lstm = nn.LSTM(_HIDDEN, _HIDDEN, num_layers=_LAYERS, batch_first=True)
        self.to_empty(device="cpu")
        generator = torch.Generator().manual_seed(seed)
        for parameter in self.parameters():
            # Small, so that every option is about as likely at first.
            nn.init.uniform_(parameter, -0.1, 0.1, generator=generator)

    def log_probabilities(self, chosen: torch.Tensor, weights: torch.Tensor) -> list[torch.Tensor]:
        """Return the distribution at each choice, given what was chosen before it.

        Args:
            chosen: Index of the option by choice, shape (n, n_choices).
            weights: Importance of the objectives, shape (n, n_objectives).

        Returns:
            Log-probabilities by choice, shape (n, n_options) each.
        """
        hidden, _ = self.lstm(self._inputs(chosen, weights))
        return [
            self.outputs[kind](hidden[:, place]).log_softmax(dim=-1) for place, kind in enumerate(self._kinds)
        ]

    @torch.inference_mode()
    def sample(self, uniform: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Return chosen options, shape (n, n_choices).

        Args:
            uniform: Random numbers in [0, 1), shape (n, n_choices).
            weights: Importance of the objectives, shape (n, n_objectives).
        """
        count, places = uniform.shape
        chosen = torch.zeros(count, places, dtype=torch.long)
        state, read = None, self.weighting(weights) + self.places.weight[0]
        for place, kind in enumerate(self._kinds):
            hidden, state = self.lstm(read[:, None], state)
            shares = self.outputs[kind](hidden[:, 0]).double().softmax(dim=-1).cumsum(dim=-1)
            last = shares.shape[1] - 1
            chosen[:, place] = (shares < uniform[:, place : place + 1].double()).sum(dim=-1).clamp(max=last)
            if place + 1 < places:
                read = self.options[str(kind)](chosen[:, place]) + self.places.weight[place + 1]
        return chosen

    def _inputs(self, chosen: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        read = [self.weighting(weights)]
        read += [self.options[str(kind)](chosen[:, place]) for place, kind in enumerate(self._kinds[:-1])]
        return torch.stack(read, dim=1) + self.places.weight


def _kind(choice: Choice) -> tuple[str, tuple[object, ...]]:
    """Return what choices have in common that share their layers: the last word of the name, and the options."""
    _, dot, last = choice.name.rpartition(".")
    return last if dot else "", choice.options
