"""`vlakit explain model=siglip_7b strategy=sandwich`: the module table, counted on the meta device in seconds."""

from __future__ import annotations

from collections.abc import Sequence

from vlakit.cli.configuration import compose_config
from vlakit.cli.output import check_format, emit
from vlakit.cli.policies import policy_of
from vlakit.cli.uncollected import uncollected


@uncollected()
def main(overrides: Sequence[str]) -> None:
    """Print parameters, trainable, reachable by gradient and optimizer bytes a module."""
    cfg = compose_config("explain", overrides)
    check_format(cfg.format)
    from vlakit.accounting.meta import prepared
    from vlakit.accounting.parameters import ModuleCount, explain, reached_names, unreached_adapters
    from vlakit.models.adapters import bare_layers, named_briefly

    policy = policy_of(cfg)
    model = prepared(policy)
    reached = reached_names(model, policy.processor.blank(1, device="meta"))
    rows = explain(model, reached)
    total: ModuleCount = rows[-1]
    silent, adapters = unreached_adapters(model, reached)
    bare = bare_layers(model) if adapters else []
    report = {
        "model": model.description,
        "strategy": policy.name,
        "trainable": total.trainable,
        "reachable": total.reachable,
        "total": total.total,
        "optimizer_bytes": total.optimizer_bytes,
        "adapters": adapters,
        "adapters_without_gradient": silent,
        "layers_without_adapter": bare,
        "modules": [row.to_dict() for row in rows[:-1]],
    }
    text = _text(rows, silent, adapters)
    if bare:
        text += f"\nno adapter on {named_briefly(bare)}, which strategy=full trains"
    emit(report, text, cfg.format)


def _text(rows: Sequence, silent: int, adapters: int) -> str:
    header = f"{'module':<46}{'parameters':>16}{'trainable':>16}{'reachable':>16}{'AdamW state':>14}"
    lines = [header, "-" * len(header)]
    for row in rows:
        if row.module == "model":
            lines.append("-" * len(header))
        gigabytes = f"{row.optimizer_bytes / 1e9:.2f} GB"
        lines.append(f"{row.module:<46}{row.total:>16,}{row.trainable:>16,}{row.reachable:>16,}{gigabytes:>14}")
    total = rows[-1]
    share = 100 * total.trainable / total.total
    lines.append(f"trainable {total.trainable:,} of {total.total:,} ({share:.2f} %)")
    if total.reachable < total.trainable:
        lines.append(
            f"{total.trainable - total.reachable:,} of these never get a gradient: features leave each tower before its"
            " last block, so that block, the norm and the pooling head stay as they are"
        )
    if silent:
        lines.append(f"{silent} of {adapters} adapters never get a gradient, for the same reason")
    return "\n".join(lines)
