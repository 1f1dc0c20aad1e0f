"""The names by which suites are called: files of conf/suite, and SUITE_ROBOT for those that take any robot."""

from __future__ import annotations

from vlakit.configs import config_file, config_names


def suite_names() -> list[str]:
    """Names of all suites, sorted; of a suite for any robot also those with the robot's name behind."""
    return sorted({*config_names("suite"), *on_robots()})


def on_robots() -> dict[str, tuple[str, str]]:
    """SUITE_ROBOT -> (suite, robot) for every suite that is built for any robot, but for names that files have."""
    suites = config_names("suite")
    open_to_any = [suite for suite in suites if {"_target_", "embodiment"} <= _keys(suite)]
    pairs = [(suite, robot) for suite in open_to_any for robot in config_names("embodiment")]
    return {f"{suite}_{robot}": (suite, robot) for suite, robot in pairs if f"{suite}_{robot}" not in suites}


def _keys(suite: str) -> set[str]:
    from vlakit.checked import read_yaml

    content = read_yaml(config_file("suite", suite))
    return set(content) if isinstance(content, dict) else set()
