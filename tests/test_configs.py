"""Where configuration files are looked for."""

from pathlib import Path

import pytest

from vlakit import configs


def test_an_installed_package_finds_conf_inside_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configs, "__file__", str(tmp_path / "site-packages/vlakit/configs.py"))
    (tmp_path / "conf").mkdir()
    assert configs.conf_root() == tmp_path / "site-packages/vlakit/conf"
