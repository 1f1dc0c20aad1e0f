"""What this machine must have before a command begins: a device, a folder to write to."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryFile

from vlakit.errors import ConfigError, PartMissing


def check_device(name: str | None, where: str = "device") -> None:
    """Raise PartMissing for a GPU that is not here; cpu asks nobody."""
    if name is None or name == "cpu":
        return
    import torch

    kind, _, number = name.partition(":")
    cuda = kind in ("cuda", "gpu")
    seen = torch.cuda.device_count() if cuda else int(torch.backends.mps.is_available())
    if int(number or 0) >= seen:
        what = (
            f"{kind if number == '' or not seen else name} is not here: torch {torch.__version__} sees {seen} of them"
        )
        raise PartMissing(what, where=f"{where}={name}", do=f"{where}=cpu, or a build of torch for this machine's GPU")


def check_writable(folder: str | Path) -> Path:
    """The folder, which is not made yet. Raises ConfigError where it cannot be: read-only, below a file, no rights."""
    place = Path(folder).expanduser()
    there = next(parent for parent in (place.absolute(), *place.absolute().parents) if _exists(parent))
    try:
        with TemporaryFile(dir=there):  # asking for rights is not enough: root has all, and /proc takes no file
            pass
    except OSError as error:
        what = f"cannot write here: {error.strerror}"
        raise ConfigError(what, where=str(there), do="name a folder that can be written, such as out=DIR") from error
    return place


def _exists(place: Path) -> bool:
    try:
        return place.exists()
    except OSError as error:  # such as a name that is too long
        what = f"cannot use this path: {error.strerror}"
        raise ConfigError(what, where=str(place), do="name another folder") from error
