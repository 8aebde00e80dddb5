"""The table that chaos runs write to, with a key for each of its partitions."""

import contextlib
import time

from datamodel.key_encoding import KeySchema, encode_key, partition_bounds
from tests.cluster.fault_table import create_table
from tests.cluster.harness import LocalCluster
from tests.cluster.workload import Answer, WireClient

PARTITIONS = 3
SCHEMA = KeySchema("pk", "S")


def keys_in_each(table_id: int, partitions: int) -> list[str]:
    """For each partition in key order the first of the keys probe-0, probe-1, ... that lies in it."""
    bounds = partition_bounds(table_id, partitions)
    found: dict[int, str] = {}
    number = 0
    while len(found) < partitions:
        key = f"probe-{number}"
        encoded = encode_key(table_id, SCHEMA, {"pk": {"S": key}})
        place = sum(encoded >= bound for bound in bounds) - 1
        found.setdefault(place, key)
        number += 1
    return [found[place] for place in range(partitions)]


class ChaosTable:
    """Created on entry, deleted on exit."""

    def __init__(self, cluster: LocalCluster, name: str) -> None:
        self.name = name
        self._cluster = cluster
        self._keys: dict[int, str] = {}

    def __enter__(self) -> "ChaosTable":
        create_table(self._cluster, PARTITIONS, self.name)
        table = next(t for t in self._cluster.status()["tables"] if t["name"] == self.name)
        keys = keys_in_each(int(table["table_id"]), PARTITIONS)
        groups = [int(part["group"]) for part in table["partitions"]]  # in key order
        self._keys = dict(zip(groups, keys, strict=True))
        self.wait_writable(30)
        return self

    def __exit__(self, *_: object) -> None:
        client = WireClient(self._cluster.http)
        with contextlib.suppress(Answer, OSError):
            client.call("DeleteTable", TableName=self.name)
        client.close()

    def key_by_group(self) -> dict[int, str]:
        """A key in each partition, by its group."""
        return dict(self._keys)

    def wait_writable(self, timeout_s: float) -> None:
        """Return once every partition takes a write."""
        deadline = time.monotonic() + timeout_s
        left = list(self._keys.values())
        client = WireClient(self._cluster.http)
        while left:
            item = {"pk": {"S": left[0]}, "v": {"N": "0"}}
            try:
                client.call("PutItem", TableName=self.name, Item=item)
                left.pop(0)
            except (Answer, OSError) as error:
                if time.monotonic() > deadline:
                    raise AssertionError(f"no writes within {timeout_s} s: {error}") from error
                time.sleep(0.05)
        client.close()
