"""Actions to token ids and back: the last `n_bins` ids below the padding; the larger the action, the smaller its id."""

import numpy as np
import numpy.typing as npt

from vlakit.errors import ActionNotFinite, InvalidData
from vlakit.schema import Float32, Int64


class ActionTokenizer:
    """Uniform bins over [-1, 1]. Source: OpenVLA, Section 3.2; ids as in its released code.

    `padding_id` is the first id past the action tokens: 32000 for Llama-2, whose action ids are then 31744 to 31999.
    """

    def __init__(self, n_bins: int = 256, padding_id: int = 32000) -> None:
        if not 2 <= n_bins <= padding_id:
            raise InvalidData(f"n_bins is {n_bins}", where="action tokenizer", do=f"choose between 2 and {padding_id}")
        self.n_bins, self.padding_id = n_bins, padding_id
        self.edges = np.linspace(-1.0, 1.0, n_bins)  # 256 edges bound 255 intervals
        self.centers = (self.edges[:-1] + self.edges[1:]) / 2

    @property
    def begin(self) -> int:
        """Smallest action id, the one of +1."""
        return self.padding_id - self.n_bins

    def n_tokens(self, action_size: int) -> int:
        """Ids of one action: one a number."""
        return action_size

    def encode(self, actions: npt.ArrayLike) -> Int64:
        """Ids (..., A) of actions (..., A) in [-1, 1]; values outside are clipped, NaN raises ActionNotFinite.

        >>> ActionTokenizer().encode([-1.0, 0.0, 0.5, 1.0])
        array([31999, 31872, 31808, 31744])
        """
        values = np.asarray(actions, dtype=np.float64)
        if not np.isfinite(values).all():
            raise ActionNotFinite("an action to tokenize is not finite", do="check the data: vlakit shards verify=DIR")
        return self.padding_id - np.digitize(values.clip(-1.0, 1.0), self.edges).astype(np.int64)

    def decode(self, ids: npt.ArrayLike, *, strict: bool = True) -> Float32:
        """Bin centres of ids (...), float32; the ids of the two largest bins share a centre.

        An id of no action raises InvalidData; strict=False clips it to the nearest bin, as the released code does.

        >>> ActionTokenizer().decode([31999, 31872, 31745, 31744]).round(5).tolist()
        [-0.9960799813270569, 0.0, 0.9960799813270569, 0.9960799813270569]
        """
        tokens = np.asarray(ids, dtype=np.int64)
        outside = tokens[~self.is_action(tokens)]
        if strict and outside.size:
            raise InvalidData(
                f"token id {outside[0]} is not an action id",
                where=f"action ids are {self.begin} to {self.padding_id - 1}",
                do="decode with constrain=true, or train the model further",
            )
        bins = (self.padding_id - tokens - 1).clip(0, len(self.centers) - 1)
        return self.centers[bins].astype(np.float32)

    def is_action(self, ids: Int64) -> npt.NDArray[np.bool_]:
        """True where an id of any shape is an action id."""
        return (ids >= self.begin) & (ids < self.padding_id)
