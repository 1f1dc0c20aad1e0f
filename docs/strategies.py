"""Draws docs/strategies.png from the code: what each strategy trains of the paper's model."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from hydra.utils import instantiate

from vlakit.accounting.parameters import count_parameters
from vlakit.cli.configuration import compose_config, to_plain
from vlakit.processing.processor import build_processor

STRATEGIES = ("full", "last_layer", "frozen_vision", "sandwich", "lora")
PARTS = {
    "vision towers": "vision_backbone.",
    "projector": "projector.",
    "embeddings": "language_model.model.embed_tokens.",
    "31 blocks": "language_model.model.layers.1.",
    "last block": "language_model.model.layers.31.",
    "head": "language_model.lm_head.",
}
TRAINED, ADAPTED, FROZEN = "#e8743b", "#f6c5a8", "#dfe5ec"


def trained_parts(strategy: str) -> tuple[dict[str, str], int]:
    """Colour of each part, and the number of trainable parameters."""
    cfg = compose_config("explain", ["model=siglip_7b", f"strategy={strategy}"])
    processor = build_processor(to_plain(cfg.model.processor))
    policy = instantiate(cfg.strategy, network=to_plain(cfg.model.network), processor=processor, _convert_="all")
    model = policy.built("meta")
    colours = {}
    for part, prefix in PARTS.items():
        trains = [(name, p.requires_grad) for name, p in model.named_parameters() if name.startswith(prefix)]
        adapted = any(".lora_" in name for name, _ in trains)
        some = any(flag for _, flag in trains)
        colours[part] = ADAPTED if adapted else TRAINED if some else FROZEN
    return colours, count_parameters(model)[0]


def main() -> None:
    """Draw one row a strategy."""
    figure, axis = plt.subplots(figsize=(9.6, 3.0))
    for row, strategy in enumerate(STRATEGIES):
        colours, trainable = trained_parts(strategy)
        for column, colour in enumerate(colours.values()):
            axis.add_patch(plt.Rectangle((column, -row), 0.94, 0.78, color=colour))
        title = "lora (rank 32)" if strategy == "lora" else strategy
        axis.text(-0.1, -row + 0.39, title, ha="right", va="center", fontsize=11)
        axis.text(len(PARTS) + 0.1, -row + 0.39, f"{trainable / 1e6:,.1f} M", ha="left", va="center", fontsize=11)
    for column, part in enumerate(PARTS):
        axis.text(column + 0.47, 0.9, part, ha="center", va="bottom", fontsize=10)
    axis.text(len(PARTS) + 0.1, 0.9, "trains", ha="left", va="bottom", fontsize=10)
    legend = [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in (TRAINED, ADAPTED, FROZEN)]
    axis.legend(legend, ["trains", "low-rank adapters train", "frozen"], loc="upper center",
                bbox_to_anchor=(0.5, 0.02), ncols=3, frameon=False)  # fmt: skip
    axis.set(xlim=(-1.6, len(PARTS) + 1.1), ylim=(-len(STRATEGIES) + 0.8, 1.25))
    axis.axis("off")
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=130, bbox_inches="tight")


if __name__ == "__main__":
    main()
