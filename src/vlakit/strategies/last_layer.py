"""Last layer only: embeddings, last block and head of the language model, not its final norm (Table 1, row 2)."""

from vlakit.strategies.base import Finetune


class LastLayer(Finetune):
    """465.1 M parameters of the paper's model."""

    name = "last_layer"
    trainable = (
        "language_model.model.embed_tokens.*",
        "language_model.model.layers.{last}.*",
        "language_model.lm_head.*",
    )
