"""Files behind s3:// and https://, by fsspec: read in ranges, tried again after growing waits, then one clear error.

Nothing here is imported, or reached, before somebody gives such a URL. Keys come from where AWS's own tools take them
(AWS_PROFILE, AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL...), a bucket without keys by FSSPEC_S3_ANON=true; never from a URL.
"""

from __future__ import annotations

import logging
import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import uniform
from typing import Any

from vlakit.errors import ConfigError, PartMissing, Unreachable

SCHEMES = ("s3", "https", "http")
FIRST_WAIT, LONGEST_WAIT = 0.5, 20.0  # seconds; doubled after each attempt
_URL = re.compile(r"([a-z][a-z0-9+.-]+):/+(.*)")  # as many slashes as pathlib leaves of two
_KEYS = "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; FSSPEC_S3_ANON=true for a public bucket"
_LASTING = range(400, 500)  # HTTP: what no further attempt mends, but for these
_PASSING = (408, 416, 425, 429)
log = logging.getLogger(__name__)


def url_of(place: str | Path) -> str | None:
    """The URL that a place is, also after pathlib took a slash from it; None for a local path. Raises ConfigError.

    >>> url_of("s3://bucket/shards/"), url_of(Path("https://host/shards") / "bridge"), url_of("data/bridge")
    ('s3://bucket/shards', 'https://host/shards/bridge', None)
    """
    match = _URL.fullmatch(str(place))
    if match is None or Path(place).exists():
        return None
    scheme, rest = match.groups()
    host = rest.partition("/")[0]
    if scheme not in SCHEMES or not host:
        remedy = f"known: {', '.join(f'{known}://' for known in SCHEMES)}, then bucket or host, then the folder"
        raise ConfigError("no place that shards are read from", where=f"{scheme}://{rest}", do=remedy)
    if "@" in host or "?" in rest:
        remedy = "leave them out: every record would show them. Keys: " + _KEYS
        raise ConfigError("keys in a URL", where=f"{scheme}://{host.rpartition('@')[2]}/...", do=remedy)
    return f"{scheme}://{rest.rstrip('/')}"


@dataclass
class Remote:
    """The files of one remote folder. timeout_s: of silence, after which a read counts as failed."""

    url: str
    attempts: int
    timeout_s: float
    _systems: dict[int, Any] = field(default_factory=dict[int, Any], repr=False)  # by process: a fork needs its own

    def read(self, name: str, start: int | None = None, end: int | None = None) -> bytes:
        """Bytes start to end of a file, or all; all too from a server that knows no ranges.

        Raises FileNotFoundError, at once, and Unreachable: at once where keys are lacking, else after all attempts.
        """
        return self._tried(name, lambda system, url: _sized(system.cat_file(url, start=start, end=end), start, end))

    def size(self, name: str) -> int | None:
        """Bytes of a file, None where the server does not say; raises as `read`."""
        return self._tried(name, lambda system, url: system.info(url)["size"])

    def sizes(self) -> dict[str, int]:
        """Name -> bytes of all files; of none where they cannot be listed: over HTTP, or where keys do not allow it."""
        if not self.url.startswith("s3:"):
            return {}
        try:
            files = self._tried("", lambda system, url: system.ls(url, detail=True))
        except (FileNotFoundError, Unreachable):
            return {}
        return {file["name"].rpartition("/")[2]: file["size"] for file in files if file["type"] == "file"}

    def _tried(self, name: str, call: Any) -> Any:
        url, why = f"{self.url}/{name}".rstrip("/"), ""
        for attempt in range(self.attempts):
            if attempt:
                log.warning("%s: %s; attempt %d of %d follows", url, why, attempt + 1, self.attempts)
                time.sleep(min(FIRST_WAIT * 2 ** (attempt - 1), LONGEST_WAIT) * uniform(0.5, 1))
            try:
                return call(self._system(), url)
            except PartMissing:
                raise
            except Exception as error:  # backends raise of their own: aiohttp, botocore, asyncio, ssl and more
                if isinstance(error, FileNotFoundError) and _is_absent(error):
                    raise
                why = " ".join(f"{type(error).__name__}: {error}".split())[:300]
                _raise_lasting(error, why, url)
        remedy = "see whether the machine is there (data.remote: attempts, timeout_s), and give the same command again"
        raise Unreachable(f"not read in {self.attempts} attempts, the last: {why}", where=url, do=remedy)

    def _system(self) -> Any:
        if os.getpid() not in self._systems:
            self._systems = {os.getpid(): _system_of(self.url.partition(":")[0], self.timeout_s)}
        return self._systems[os.getpid()]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_systems": {}}


class _Short(OSError):
    """A read that ended early."""


def _is_absent(error: FileNotFoundError) -> bool:
    """fsspec calls a file absent also where a request for its size failed for another reason."""
    return error.__cause__ is None or getattr(error.__cause__, "status", 404) == 404


def _sized(data: bytes, start: int | None, end: int | None) -> bytes:
    if start is not None and end is not None and len(data) < end - start:
        raise _Short(f"{len(data):,} bytes came of the {end - start:,} from {start:,} on")
    return data


def _raise_lasting(error: BaseException, why: str, url: str) -> None:
    """Raise Unreachable for what no further attempt mends: keys that are lacking or wrong, a request refused."""
    kinds, status = {kind.__name__ for kind in type(error).__mro__}, getattr(error, "status", None)
    unkeyed = {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound"}
    if kinds & {"PermissionError", *unkeyed} or status in (401, 403):
        raise Unreachable(f"not given to us: {why}", where=url, do=_KEYS) from error
    if status in _LASTING and status not in _PASSING:
        raise Unreachable(f"refused: {why}", where=url, do="see whether the URL is right") from error


def _system_of(scheme: str, timeout_s: float) -> Any:
    """fsspec's file system; attempts are counted here alone, so those below make one."""
    try:
        import fsspec

        if scheme == "s3":
            waits = {"connect_timeout": timeout_s, "read_timeout": timeout_s, "retries": {"total_max_attempts": 1}}
            system = fsspec.filesystem("s3", skip_instance_cache=True, use_listings_cache=False, config_kwargs=waits)
            system.retries = 1
            return system
        import aiohttp

        silence = aiohttp.ClientTimeout(total=None, sock_connect=timeout_s, sock_read=timeout_s)
        return fsspec.filesystem("http", skip_instance_cache=True, client_kwargs={"timeout": silence})
    except ImportError as error:
        raise PartMissing(
            f"{error.name} is not installed", where=f"{scheme}://", do="pip install 'vlakit[s3]'"
        ) from error
