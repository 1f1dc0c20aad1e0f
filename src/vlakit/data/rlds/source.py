"""An RLDS folder as a source of demonstrations (vlakit.data.source)."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlakit.data.rlds.folder import RldsFolder, open_rlds
from vlakit.data.rlds.reader import parse_episode
from vlakit.data.rlds.tfrecord import RecordHeader, read_record, record_headers
from vlakit.data.survey import Survey
from vlakit.errors import CorruptRecord


@dataclass(frozen=True, slots=True)
class RldsSource:
    """Each record of the tfrecord files is an episode; its framing alone, 16 bytes, is its header."""

    folder: RldsFolder

    @classmethod
    def open(cls, path: Path) -> RldsSource:
        """DIR/1.0.0, or DIR with one version below it; errors as `open_rlds`."""
        return cls(open_rlds(path))

    @property
    def path(self) -> Path:
        """The version folder."""
        return self.folder.path

    @property
    def splits(self) -> list[str]:
        """Names of the splits that have a file."""
        return [name for name, files in self.folder.splits.items() if files]

    def identity(self) -> dict[str, Any]:
        """The dataset's name and how large each file is."""
        files = (file for split in self.folder.splits.values() for file in split)
        return {"name": self.folder.name, "file_sizes": {file.name: file.stat().st_size for file in files}}

    def survey(self) -> Survey:
        """Fields by features.json; how many steps, only the records say."""
        leaves = self.folder.features.steps.values()
        images = {leaf.key.removeprefix("steps/"): leaf for leaf in leaves if leaf.kind == "image"}
        return Survey(
            format="RLDS",
            n_episodes=sum(1 for split in self.splits for _ in self.headers(split)),
            n_steps=None,
            fields={path: f"{leaf.dtype} {leaf.shape}" for path, leaf in self.folder.features.steps.items()},
            cameras={
                path.removeprefix("observation/"): (leaf.shape[0] or 0, leaf.shape[1] or 0)
                if all(leaf.shape[:2])
                else None
                for path, leaf in images.items()
            },
        )

    def headers(self, split: str) -> Iterator[RecordHeader]:
        """The records of a split, file after file; CorruptRecord when a file holds not as many as are declared."""
        files = self.folder.splits[split]
        for file in files:
            n_records, declared = 0, self.folder.lengths.get(file)
            for header in record_headers(file):
                n_records += 1
                yield header
            # Of a split that nobody declared, an empty file among others is an aborted copy.
            if n_records != declared if declared is not None else not n_records and len(files) > 1:
                said = "" if declared is None else f", and dataset_info.json declares {declared}"
                raise CorruptRecord(
                    f"the file holds {n_records} records{said}",
                    where=str(file),
                    do="finish the download, or fetch file and dataset_info.json again",
                )

    def read(self, header: RecordHeader, fields: Collection[str]) -> dict[str, np.ndarray | list[Any]]:
        """The named step fields of one record, its checksum checked; a field of its metadata is the same every step."""
        features, where = self.folder.features, str(header)
        once = [field for field in fields if field in features.metadata and field not in features.steps]
        of_steps = [field for field in fields if field not in once]
        episode = parse_episode(read_record(header), features, where=where, only=of_steps)
        return {**episode.steps, **{field: [episode.metadata[field]] * episode.n_steps for field in once}}

    def same(self, header: RecordHeader, other: RecordHeader) -> bool:
        """Whether two records hold the same bytes."""
        return read_record(header) == read_record(other)
