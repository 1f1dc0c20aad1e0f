"""A language model that knows the right answers."""

from collections.abc import Callable, Sequence

import numpy as np

from vlakit.planning.language_models import Likelihoods


class Oracle:
    """Knows the right answers: 1 - epsilon shared by what `right` says of a prompt, the rest by all others."""

    name = "oracle"

    def __init__(self, right: Callable[[str], Sequence[str]], epsilon: float = 0.01) -> None:
        self.right, self.epsilon = right, epsilon

    def score(self, prompt: str, options: Sequence[str]) -> Likelihoods:
        """See Scorer."""
        right = np.isin(np.asarray(options), np.asarray(self.right(prompt)))
        share = np.where(right, (1 - self.epsilon) / max(right.sum(), 1), self.epsilon / max((~right).sum(), 1))
        return Likelihoods(np.log(share), np.ones(len(options), int))
