"""The laws of the losses, beside the originals' numbers that tests/parity holds."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from vlakit.errors import ConfigError, InvalidData, UnknownName
from vlakit.preferences.losses import LOSSES, UNPAIRED, Exact, LossSettings, Scored, judge, weights_ratio

torch.manual_seed(0)
MASK = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 1, 1], [1, 0, 0]]).bool()


def scored(same: bool = False, paired: bool = True) -> Scored:
    """Two pairs, or four episodes, of at most three tokens; same: the policy is the reference."""
    reference = -torch.rand(4, 3, dtype=torch.float64) * 3
    logp = reference.clone() if same else reference + 0.4 * torch.randn(4, 3, dtype=torch.float64)
    if paired:
        return Scored.pairs(logp, reference, MASK)
    label = torch.tensor([True, False, True, False])
    return Scored(logp, reference, MASK, label, (torch.randn(4).double(), torch.randn(4).double()))


def numeric(batch: Scored, settings: LossSettings, step: float = 1e-6) -> Tensor:
    """Central differences of the loss by each log-probability."""
    gradient = torch.zeros_like(batch.logp)
    for place in range(batch.logp.numel()):
        moved = torch.zeros(batch.logp.numel(), dtype=torch.float64)
        moved[place] = step
        up, down = (
            judge(replace(batch, logp=batch.logp + sign * moved.view_as(batch.logp)), settings).loss for sign in (1, -1)
        )
        gradient.view(-1)[place] = (up - down) / (2 * step)
    return gradient


@pytest.mark.parametrize("loss", LOSSES.names())
def test_the_gradient_of_every_loss_is_that_of_finite_differences(loss: str) -> None:
    settings = LossSettings(loss, beta=0.7, label_smoothing=0.1 if loss in ("cdpo", "robust") else 0.0, sft_weight=0.3)
    batch = scored(paired=loss not in UNPAIRED)
    assert Exact.of(batch, settings).weights.allclose(numeric(batch, settings), atol=1e-7)


@pytest.mark.parametrize(
    ("loss", "at_reference"),
    [
        *((loss, math.log(2)) for loss in ("dpo", "cdpo", "robust", "dpo_norm")),
        *((loss, 1 / (4 * 0.5**2)) for loss in ("ipo", "ipo_length_norm")),
        *((loss, 1.0) for loss in ("apo_zero", "hinge")),
        ("apo_zero_unpaired", 0.5),
    ],
)
def test_at_the_reference_the_loss_is_known(loss: str, at_reference: float) -> None:
    smoothing = 0.2 if loss in ("cdpo", "robust") else 0.0
    judged = judge(scored(same=True, paired=loss not in UNPAIRED), LossSettings(loss, 0.5, smoothing))
    assert float(judged.loss) == pytest.approx(at_reference, abs=1e-12)


def test_kto_at_the_reference_without_divergence_is_half_an_episode() -> None:
    batch = replace(scored(same=True, paired=False), mismatched=(-torch.ones(3), torch.zeros(3)))
    judged = judge(batch, LossSettings("kto", 0.5))
    assert (float(judged.loss), float(judged.z0 or 0)) == (0.5, 0.0)


def test_the_gradient_of_dpo_is_beta_times_the_weight_of_the_wrong_order() -> None:
    batch, beta = scored(), 0.6
    h = batch.gap(batch.ratio)
    factor = -beta * torch.sigmoid(-beta * h) / 2  # two pairs
    expected = torch.cat([factor, -factor])[:, None] * MASK
    assert Exact.of(batch, LossSettings("dpo", beta)).weights.allclose(expected, atol=1e-12)


def test_no_gradient_goes_through_the_divergence_of_kto() -> None:
    batch = scored(paired=False)
    policy = torch.randn(4, dtype=torch.float64, requires_grad=True)
    judged = judge(replace(batch, mismatched=(policy, policy.detach() - 1)), LossSettings("kto", 0.5))
    assert float(judged.z0 or 0) == pytest.approx(1)
    assert judged.z0 is not None
    assert not judged.z0.requires_grad


def test_a_pair_turned_round_turns_its_margin_round() -> None:
    batch = scored()
    turned = Scored.pairs(batch.logp.roll(2, 0), batch.reference.roll(2, 0), batch.mask.roll(2, 0))
    assert turned.gap(turned.ratio).allclose(-batch.gap(batch.ratio))


@pytest.mark.parametrize("loss", LOSSES.names())
@pytest.mark.parametrize("noise", [1e6, torch.nan, -torch.inf])
def test_what_stands_behind_the_mask_does_not_count(loss: str, noise: float) -> None:
    settings, batch = LossSettings(loss, 0.5, sft_weight=1.0), scored(paired=loss not in UNPAIRED)
    other = replace(batch, logp=batch.logp.where(MASK, noise), reference=batch.reference.where(MASK, noise))
    plain, noisy = Exact.of(batch, settings), Exact.of(other, settings)
    assert torch.equal(plain.judged.loss, noisy.judged.loss)
    assert torch.equal(plain.weights, noisy.weights)


def test_sums_of_a_thousand_half_precision_tokens_are_exact_to_float32() -> None:
    logp = torch.full((2, 1000), -0.1, dtype=torch.bfloat16)
    batch = Scored.pairs(logp, torch.zeros_like(logp), torch.ones(2, 1000).bool())
    assert batch.policy.dtype == torch.float32
    assert float(batch.policy[0]) == pytest.approx(1000 * float(logp[0, 0]), rel=1e-6)


def test_an_accuracy_counts_strictly_better_pairs_alone() -> None:
    batch = scored(same=True)
    assert float(judge(batch, LossSettings()).scalars(batch)["rewards/accuracies"]) == 0


def test_a_batch_of_one_label_has_a_loss() -> None:
    batch = replace(scored(paired=False), preferred=torch.zeros(4).bool())
    assert torch.isfinite(judge(batch, LossSettings("kto")).loss)
    assert float(Exact.of(batch, LossSettings("filtered_bc")).weights.abs().sum()) == 0


def bandit(beta: float, steps: int = 500) -> tuple[Tensor, Tensor, Tensor]:
    """Three arms, DPO on all Bradley-Terry pairs of known rewards: (log pi, log pi_ref, rewards)."""
    rewards, reference = torch.tensor([0.0, 0.5, 1.2]).double(), torch.tensor([0.5, 0.3, 0.2]).double().log()
    logits = reference.clone().requires_grad_(True)
    optimizer = torch.optim.LBFGS(
        [logits], max_iter=steps, tolerance_grad=1e-14, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )
    pairs = [(i, j) for i in range(3) for j in range(3) if i != j]
    chosen, rejected = (torch.tensor([pair[side] for pair in pairs]) for side in (0, 1))
    share = torch.sigmoid(rewards[chosen] - rewards[rejected])  # how often the one is preferred

    def closure() -> Tensor:
        optimizer.zero_grad()
        logp = logits.log_softmax(0)
        arms = torch.cat([chosen, rejected])
        mask = torch.ones(len(arms), 1).bool()
        judged = judge(Scored.pairs(logp[arms, None], reference[arms, None], mask), LossSettings("dpo", beta))
        loss = (share * judged.rows).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return logits.detach().log_softmax(0), reference, rewards


@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_dpo_on_all_pairs_of_a_bandit_ends_at_the_closed_form(beta: float) -> None:
    logp, reference, rewards = bandit(beta)
    closed = (reference + rewards / beta).log_softmax(0)
    assert float((logp.exp() * (logp - closed)).sum()) < 1e-9


def test_a_great_beta_leaves_the_policy_where_it_is() -> None:
    logp, reference, _ = bandit(1e4)
    assert logp.allclose(reference, atol=1e-3)


@pytest.mark.parametrize(
    "wrong",
    [{"beta": 0.0}, {"label_smoothing": 0.5}, {"sft_weight": -1.0}, {"loss": "dpo", "label_smoothing": 0.1}],
)
def test_numbers_that_mean_nothing_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        LossSettings(**({"loss": "cdpo"} | wrong))  # pyright: ignore[reportArgumentType]


def test_a_loss_that_is_none_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match="apo_zero"):
        LossSettings("apo_zeros")


def test_rows_that_are_no_pairs_and_kto_without_other_answers_are_refused() -> None:
    with pytest.raises(InvalidData, match="no pairs"):
        Scored.pairs(torch.zeros(3, 1), torch.zeros(3, 1), torch.ones(3, 1))
    with pytest.raises(InvalidData, match="other questions"):
        judge(scored(), LossSettings("kto"))


def test_successes_at_twice_their_weight_balance_twice_as_many_failures() -> None:
    assert weights_ratio(30, 60, LossSettings("kto", desirable_weight=2.0)) == 1.0
