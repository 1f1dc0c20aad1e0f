"""Examples to a `Batch`, padded on the right: attention is causal, so padding behind an answer changes nothing."""

from collections.abc import Sequence

import numpy as np
import torch

from vlakit.schema import NO_LOSS, Batch, Example


class Collate:
    """Pads with `padding_id`; labels of padding carry no loss."""

    def __init__(self, padding_id: int) -> None:
        self.padding_id = padding_id

    def __call__(self, examples: Sequence[Example]) -> Batch:
        """B examples to one batch, T the longest."""
        lengths = [len(example.input_ids) for example in examples]
        shape = (len(examples), max(lengths))
        input_ids = np.full(shape, self.padding_id, dtype=np.int64)
        labels = np.full(shape, NO_LOSS, dtype=np.int64)
        for row, example in enumerate(examples):
            input_ids[row, : lengths[row]] = example.input_ids
            labels[row, : lengths[row]] = example.labels
        mask = np.arange(shape[1]) < np.array(lengths)[:, None]
        return Batch(
            pixel_values=torch.stack([example.pixel_values for example in examples]),
            input_ids=torch.from_numpy(input_ids),
            attention_mask=torch.from_numpy(mask.astype(np.int64)),
            labels=torch.from_numpy(labels),
            actions=torch.from_numpy(np.stack([example.actions for example in examples])),
            normalized=torch.from_numpy(np.stack([example.normalized for example in examples])),
            chunk_mask=torch.from_numpy(np.stack([example.chunk_mask for example in examples])),
            keys=[example.key for example in examples],
            datasets=[example.dataset for example in examples],
            position=examples[0].position,
            rows=[example.row for example in examples],
        )
