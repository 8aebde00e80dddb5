"""Clients that hammer a cluster and remember exactly what they were told."""

import http.client
import json
import random
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Self
from urllib.parse import urlsplit

from tests.cluster.linearizability import Operation


class Answer(Exception):
    """A DynamoDB error as the wire carries it."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code


# Well-formed but signed by nobody: peers in a benchmark insist on the form.
AUTHORIZATION = (
    "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/dynamodb/aws4_request, "
    f"SignedHeaders=host;x-amz-date;x-amz-target, Signature={'0' * 64}"
)


class WireClient:
    """A bare AWS JSON 1.0 client: no signing, no retries, one kept connection; not for use by threads."""

    def __init__(self, endpoint: str, timeout_s: float = 15.0) -> None:
        parts = urlsplit(endpoint)
        assert parts.hostname is not None
        self._connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout_s)

    def call(self, operation: str, **members: Any) -> dict[str, Any]:
        """One request, one answer.

        Raises:
            Answer: The service answered with an error.
            OSError, http.client.HTTPException: No answer: the outcome is unknown.
        """
        try:
            self._connection.request(
                "POST", "/", json.dumps(members),
                {
                    "X-Amz-Target": f"DynamoDB_20120810.{operation}",
                    "Content-Type": "application/x-amz-json-1.0",
                    "X-Amz-Date": "20260101T000000Z",
                    "Authorization": AUTHORIZATION,
                },
            )  # fmt: skip
            response = self._connection.getresponse()
            body = json.loads(response.read() or b"{}")
        except BaseException:
            self._connection.close()
            raise
        if response.status != 200:
            code = body.get("__type", "").rpartition("#")[2]
            raise Answer(response.status, code, body.get("message") or body.get("Message", ""))
        return body  # type: ignore[no-any-return]

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def __del__(self) -> None:
        self.close()


# Errors after which a write was certainly not done; every other failure leaves the outcome open.
CERTAIN = frozenset(
    {"ConditionalCheckFailedException", "ValidationException", "ServiceUnavailable"}
)


class Clients:
    """Threads of clients that are at it while the `with` block is. Subclasses have `run`."""

    def __init__(self, count: int) -> None:
        self.is_over = threading.Event()
        self._threads = [
            threading.Thread(target=self.run, args=(n,), daemon=True) for n in range(count)
        ]

    def run(self, number: int) -> None:
        """One client, until `is_over`."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.is_over.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "a client hangs"


class Workload(Clients):
    """Clients that write, add, create, delete and read a few items, recording one history per key.

    Every written value is unique, so that a read names the write it saw.
    """

    def __init__(
        self,
        endpoint: Callable[[], str],
        table: str,
        *,
        clients: int,
        keys: int,
        seed: int,
        prefix: str = "",
    ) -> None:
        super().__init__(clients)
        self.endpoint = endpoint
        self.table = table
        self.histories: dict[str, list[Operation]] = {f"{prefix}key-{n}": [] for n in range(keys)}
        self.acknowledged_at: list[float] = []
        self.errors: dict[str, int] = {}
        self._seed = seed
        self._lock = threading.Lock()
        self._unique = 0

    def run(self, number: int) -> None:
        """Operations on keys by chance."""
        chance = random.Random(self._seed * 1000 + number)
        client = WireClient(self.endpoint())
        keys = list(self.histories)
        while not self.is_over.is_set():
            key = chance.choice(keys)
            # Counters and registers are different keys: a sum of unique values is not unique.
            counter = keys.index(key) % 4 == 3
            kind = chance.choice(
                ("add", "read") if counter else ("write", "write", "read", "create", "delete")
            )
            self._one(client, key, kind)
            time.sleep(chance.random() * 0.01)
        client.close()

    def _one(self, client: WireClient, key: str, kind: str) -> None:
        with self._lock:
            self._unique += 1
            value: Any = 1 if kind == "add" else self._unique
        invoked = time.monotonic()
        result: Any = None
        try:
            result = perform(client, self.table, key, kind, value)
        except Answer as error:
            self._count(error.code)
            if kind == "create" and error.code == "ConditionalCheckFailedException":
                result = False
            elif error.code in CERTAIN:
                return
            else:
                self._record(key, Operation(kind, value, None, invoked))
                return
        except (OSError, http.client.HTTPException) as error:
            self._count(type(error).__name__)
            if not isinstance(error, ConnectionRefusedError):  # then it was never sent
                self._record(key, Operation(kind, value, None, invoked))
            time.sleep(0.05)
            return
        completed = time.monotonic()
        self._record(key, Operation(kind, value, result, invoked, completed))
        if kind != "read":
            self.acknowledged_at.append(completed)

    def _record(self, key: str, operation: Operation) -> None:
        with self._lock:
            self.histories[key].append(operation)

    def _count(self, name: str) -> None:
        with self._lock:
            self.errors[name] = self.errors.get(name, 0) + 1

    def longest_write_gap_s(self) -> float:
        """Longest time without any acknowledged write."""
        moments = sorted(self.acknowledged_at)
        return max((b - a for a, b in pairwise(moments)), default=0.0)

    def read_back(self) -> None:
        """Strongly read every key once more, as the last operation of each history."""
        client = WireClient(self.endpoint())
        for key, history in self.histories.items():
            invoked = time.monotonic()
            result = perform(client, self.table, key, "read", None)
            history.append(Operation("read", None, result, invoked, time.monotonic()))
        client.close()


def perform(client: WireClient, table: str, key: str, kind: str, value: Any) -> Any:
    """Do one operation on one item; returns its result in terms of `register_model`."""
    at = {"TableName": table, "Key": {"pk": {"S": key}}}
    item = {"TableName": table, "Item": {"pk": {"S": key}, "v": {"N": str(value)}}}
    if kind == "read":
        answer = client.call("GetItem", **at, ConsistentRead=True)
        return int(answer["Item"]["v"]["N"]) if "Item" in answer else None
    if kind == "write":
        client.call("PutItem", **item)
    elif kind == "create":
        client.call("PutItem", **item, ConditionExpression="attribute_not_exists(pk)")
        return True
    elif kind == "delete":
        client.call("DeleteItem", **at)
    elif kind == "add":
        answer = client.call(
            "UpdateItem", **at, UpdateExpression="ADD v :v",
            ExpressionAttributeValues={":v": {"N": str(value)}}, ReturnValues="ALL_NEW",
        )  # fmt: skip
        return int(answer["Attributes"]["v"]["N"])
    return None
