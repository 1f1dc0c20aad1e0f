"""Where configuration files are: conf/ of the checkout or of the installed package."""

from __future__ import annotations

from pathlib import Path


def conf_root() -> Path:
    """The folder conf/: the checkout's own beside src/, else the one shipped inside the installed package."""
    package = Path(__file__).parent
    checkout = package.parents[1] / "conf"
    return checkout if package.parent.name == "src" and checkout.is_dir() else package / "conf"
