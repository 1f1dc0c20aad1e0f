"""The scripted expert: what to do next, from the state alone, so that it recovers from noise as it goes.

It moves by a few sizes of step only. Of 256 bins a picture of 64 px cannot tell twenty apart; labels finer than that
teach nothing and drown what matters, and a model learnt several times as slowly from them.
"""

from __future__ import annotations

import numpy as np

from vlakit.evaluation.suites.tabletop.scene import HOVER_M, Thing, World
from vlakit.evaluation.suites.tabletop.tasks import DIRECTIONS, Goal
from vlakit.schema import Float64

CLOSE_M = 0.009  # aligned well enough to go down all the way
FUNNEL = 3.0  # metres of height an excess metre of misalignment asks for
PLACED_M = 0.085  # between the centres of X and Y in "move X near Y"
SIZES = np.array([0.0, 0.06, 0.13, 0.25, 0.4, 0.65, 1.0])  # of a move along an axis, as shares of the longest


def expert(world: World, goal: Goal) -> Float64:
    """The next action (7,): metres, radians, gripper 1 = open."""
    if goal.task == "lift":
        return _pick(world, goal.x) if not _held(world, goal.x) else _to(world, np.add(world.hand, (0, 0, 0.06)), 0)
    if goal.direction is not None:
        return _push(world, goal.x, np.array(DIRECTIONS[goal.direction]), _push_height(world.layout.things[goal.x]))
    if goal.task == "knock_over":
        side = 1.0 if world.hand[1] < world.position(goal.x)[1] else -1.0
        return _push(world, goal.x, np.array([0.0, side]), 0.075 * world.layout.things[goal.x].size)
    if not _held(world, goal.x):
        return _pick(world, goal.x)
    return _place(world, goal)


def _push_height(thing: Thing) -> float:
    return max(0.014, 0.8 * thing.height)


def _to(world: World, target: Float64, gripper: float) -> Float64:
    share = np.clip((np.asarray(target) - world.hand) / world.embodiment.step_m, -1, 1)
    size = SIZES[np.abs(np.abs(share)[:, None] - SIZES).argmin(axis=1)]
    return np.concatenate([np.sign(share) * size * world.embodiment.step_m, np.zeros(3), [gripper]])


def _held(world: World, i: int) -> bool:
    return world.gripper < 0.5 and world.gripped(i)


def _grasp_height(world: World, i: int) -> float:
    """Around the middle, but for tall things no lower than the palm allows."""
    thing, centre = world.layout.things[i], float(world.position(i)[2])
    top = centre + thing.height + (0.016 * thing.size if thing.shape == "bottle" else 0.0)
    return max(0.016, centre - 0.004, top - 0.044)


def _pick(world: World, i: int) -> Float64:
    """Open, over it, down around it, close. Above a tall thing the gripper comes from higher."""
    where, hand = world.position(i), world.hand
    off = float(np.linalg.norm((where - hand)[:2]))
    low = _grasp_height(world, i)
    if world.gripper < 0.5:  # closed on nothing
        return _to(world, np.add(hand, (0, 0, 0.04)), 1)
    if off < CLOSE_M * 1.4 and hand[2] < low + 0.012:
        return _to(world, hand, 0)
    top = where[2] + world.layout.things[i].height
    clearance = min(HOVER_M + 0.03, top + 0.035)
    height = low if off < CLOSE_M else min(clearance, low + 0.005 + FUNNEL * (off - CLOSE_M))
    if off > 0.05:
        height = clearance
    return _to(world, np.array([where[0], where[1], height]), 1)


def _place(world: World, goal: Goal) -> Float64:
    """Carry X over its place, down, open."""
    x, y = world.position(goal.x), world.position(goal.y or 0)
    hand = world.hand
    thing, other = world.layout.things[goal.x], world.layout.things[goal.y or 0]
    if goal.task == "put_on":
        spot, floor = y[:2], 2 * other.height
    else:
        away = (x - y)[:2]
        spot, floor = y[:2] + away / max(float(np.linalg.norm(away)), 1e-6) * PLACED_M, 0.0
    below = float(hand[2] - x[2]) + thing.height  # from the fingers to the underside of X
    off = float(np.linalg.norm(spot - x[:2]))
    if off < 0.015 and x[2] - thing.height < floor + 0.012:
        return _to(world, hand, 1)
    carry = max(floor, 0.05) + 0.025
    height = floor + 0.004 if off < 0.012 else min(carry, floor + 0.008 + FUNNEL * (off - 0.012))
    if off > 0.03:
        height = carry
    shift = spot - x[:2]
    near_enough = off < 0.03 or x[2] - thing.height > 0.6 * carry  # first up, then across
    across = hand[:2] + shift if near_enough else hand[:2]
    return _to(world, np.array([across[0], across[1], height + below]), 0)


def _push(world: World, i: int, along: Float64, height: float) -> Float64:
    """Closed fingers behind it, then through."""
    where, hand = world.position(i), world.hand
    across = along[::-1]
    reach = world.layout.things[i].radius + (0.028 if along[0] else 0.036)
    behind = (hand - where)[:2]
    aside = abs(float(behind @ across))
    ahead = float(behind @ along)
    start = where[:2] - along * reach
    low = hand[2] < height + 0.015
    if low and aside < 0.016 and ahead < -0.3 * reach:
        end = where[:2] + along * world.embodiment.step_m * 2
        return _to(world, np.array([end[0], end[1], height]), 0)
    off = float(np.linalg.norm(start - hand[:2]))
    top = where[2] + world.layout.things[i].height + 0.03
    if low and off > 0.03:  # up first, clear of things
        return _to(world, np.array([hand[0], hand[1], top]), 0)
    return _to(world, np.array([start[0], start[1], height if off < 0.018 else top]), 0)
