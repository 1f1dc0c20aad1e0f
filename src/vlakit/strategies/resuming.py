"""A training that goes on from a checkpoint is the one that was never interrupted, in its numbers and in its record."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping, Sequence
from typing import Any

import torch
from lightning import Trainer

from vlakit.seeding import random_states, restore_random
from vlakit.strategies.ranks import of_all_ranks

log = logging.getLogger(__name__)
_RANDOM, _VALIDATED = "random_states", "validated_step"  # of each rank; the step whose validation is done


class Continuation:
    """What a checkpoint must say for this beyond Lightning's own state, and what follows from it on the way on."""

    def __init__(self) -> None:
        self.validated = 0
        self._random: Sequence[Any] | None = None
        self._resumed = False

    def save(self, checkpoint: MutableMapping[str, Any], trainer: Trainer | None, device: torch.device) -> None:
        """Add the states of all ranks' generators, and whether this step has been validated."""
        if trainer is None:
            return
        mine = self._random[trainer.global_rank] if self._random else random_states(device)
        checkpoint[_RANDOM], checkpoint[_VALIDATED] = of_all_ranks(mine), self.validated

    def load(self, checkpoint: MutableMapping[str, Any]) -> None:
        """Remember what a checkpoint says; an older one says nothing."""
        self._random, self.validated = checkpoint.get(_RANDOM), checkpoint.get(_VALIDATED, 0)
        self._resumed = True

    def on_train_start(self, trainer: Trainer, device: torch.device) -> None:
        """Run the validation that the checkpoint's step still lacks."""
        if self._random and len(self._random) != trainer.world_size:
            log.warning("%d processes drew random numbers before, now %d", len(self._random), trainer.world_size)
            self._random = None
        loop, due = trainer.fit_loop.epoch_loop, trainer.global_step
        every = trainer.val_check_batch
        if not self._resumed or self.validated == due or not trainer.enable_validation or not isinstance(every, int):
            return
        if due % max(1, every // trainer.accumulate_grad_batches):
            return
        self._restore(trainer, device)
        loop._batches_that_stepped = due - 1  # the step under which it is recorded
        loop.val_loop.restarting = False
        loop.val_loop.reset_restart_stage()
        trainer.validating = True
        loop.val_loop.run()
        trainer.training = True
        self._random = [random_states(device)] * trainer.world_size

    def on_train_batch_start(self, trainer: Trainer, device: torch.device) -> None:
        """Let the first batch draw what it would have drawn: making loaders has drawn in between."""
        if self._resumed:
            self._restore(trainer, device)
            # Lightning counts a step twice that was interrupted, and points of the record move with it.
            trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step
            self._random, self._resumed = None, False

    def _restore(self, trainer: Trainer, device: torch.device) -> None:
        if self._random:
            restore_random(self._random[trainer.global_rank], device)
