"""verl's TransferQueue in memory: the three functions of it that are called, one row at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
import transfer_queue as tq
from tensordict import NonTensorData, TensorDict
from transfer_queue import KVBatchMeta
from verl.utils.tensordict_utils import list_of_dict_to_tensordict

PARTITION = "train"
Row = dict[str, Any]


class MemoryQueue:
    """Rows by partition and key. As in verl's, a field that one of the rows lacks is not returned.

    Attributes:
        partitions: what is stored. tags: of the rows that were put with some.
    """

    def __init__(self, rows: Mapping[str, Row], partition: str = PARTITION) -> None:
        self.partitions: dict[str, dict[str, Row]] = {
            partition: {key: dict(row) for key, row in rows.items()}
        }
        self.tags: dict[str, dict[str, Any]] = {}

    @classmethod
    def installed(cls, patch: pytest.MonkeyPatch, rows: Mapping[str, Row]) -> MemoryQueue:
        """A queue with these rows in place of the real one."""
        made = cls(rows)
        for name in ("kv_batch_get", "kv_batch_put", "kv_clear"):
            patch.setattr(tq, name, getattr(made, name))
        return made

    @property
    def rows(self) -> dict[str, Row]:
        """The rows of the samples."""
        return self.partitions[PARTITION]

    def field(self, name: str, partition: str = PARTITION) -> dict[str, Any]:
        """One field of every row that has it, tensors as lists."""
        rows = self.partitions.get(partition, {})
        found = {key: row[name] for key, row in rows.items() if name in row}
        return {
            key: value.tolist() if isinstance(value, torch.Tensor) else value
            for key, value in found.items()
        }

    def kv_batch_get(
        self, keys: Sequence[str], partition_id: str, select_fields: Sequence[str] | None = None
    ) -> TensorDict:
        rows = [self.partitions[partition_id][key] for key in keys]
        names = [
            name
            for name in (rows[0] if select_fields is None else select_fields)
            if all(name in row for row in rows)
        ]
        data = list_of_dict_to_tensordict([{name: row[name] for name in names} for row in rows])
        # verl's queue returns tensors of one dimension jagged, of equal length or not, and stacks
        # scalars.
        jagged = {
            name: torch.nested.as_nested_tensor([row[name] for row in rows], layout=torch.jagged)
            for name in names
            if isinstance(rows[0][name], torch.Tensor) and rows[0][name].dim() > 0
        }
        return data.update(jagged)

    def kv_batch_put(
        self,
        keys: Sequence[str],
        partition_id: str,
        fields: TensorDict,
        tags: Sequence[dict[str, Any]] | None = None,
    ) -> KVBatchMeta:
        stored = self.partitions.setdefault(partition_id, {})
        self.tags |= dict(zip(keys, tags or [], strict=False))
        for name in fields.keys():  # noqa: SIM118  (a TensorDict iterates over its rows)
            for key, value in zip(keys, fields[name], strict=True):
                plain = value.data if isinstance(value, NonTensorData) else value
                copied = plain.clone() if isinstance(plain, torch.Tensor) else plain
                stored.setdefault(key, {})[name] = copied
        tags = [self.tags.get(key, {}) for key in keys]
        return KVBatchMeta(keys=list(keys), tags=tags, partition_id=partition_id)

    def kv_clear(self, keys: Sequence[str], partition_id: str) -> None:
        for key in keys:
            del self.partitions[partition_id][key]
