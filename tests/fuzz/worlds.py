"""Equal sets of tables that get equal requests, one over HTTP and one over gRPC: what they answer must be equal."""

import http.client
import json
import random
import re
import time
from dataclasses import dataclass
from typing import Final

import grpc

from datamodel.shape_rules import IMPLEMENTED_OPERATIONS, TABLE_NAME_PATTERN
from proto import dynamodb_pb2
from proto.translate import from_members
from tests.cluster.raw_http import exchange, request
from tests.conformance.tables import (
    SHARED_TABLES,
    create_shared_tables,
    delete_tables,
    wait_for_table,
)
from tests.conformance.transports import GrpcTransport, HttpTransport, Outcome
from tests.fuzz.corpus import Seed
from tests.fuzz.mutators import PAGE_TOKEN
from tests.fuzz.verdicts import comparable, complaint

SECONDS_MAX: Final = 20.0
"""No answer takes longer, whatever was asked; generous, for machines that are busy with other things."""
LAG_SECONDS_MAX: Final = 5.0
PARTITIONS_MAX: Final = 6
UNDECODABLE: Final = "The message cannot be decoded"
"""What gRPC says of values that nest too deep for protobuf, which is deeper than the service allows."""

TABLE_OPERATIONS: Final = frozenset(("CreateTable", "UpdateTable", "DeleteTable"))
# What depends on other tables, on time, or on jobs that run beside: only the same refusals are expected.
_LOOSE: Final = TABLE_OPERATIONS | {
    "DescribeTable", "ListTables", "TagResource", "UntagResource", "ListTagsOfResource", "DescribeLimits",
    "DescribeEndpoints",
}  # fmt: skip
_GRPC_REFUSALS: Final = frozenset(
    (
        grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.ALREADY_EXISTS, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.PERMISSION_DENIED,
    )
)  # fmt: skip


_TOKEN_MEMBER: Final = f'"NextToken": "{PAGE_TOKEN}"'


@dataclass(slots=True)
class Answers:
    """What came of one request.

    Attributes:
        outcome: Of the first set of tables.
        seconds: How long the slowest answer took.
        complaint: What is wrong; empty if nothing is.
        transports: Over which it went.
    """

    outcome: Outcome
    seconds: float = 0.0
    complaint: str = ""
    transports: str = "http"


@dataclass(slots=True)
class _World:
    prefix: str
    token: str = "none yet"


class Worlds:
    """The sets of tables on one cluster, and the ways to them.

    Attributes:
        prefix: Of the tables that seeds name.
        sent: Requests sent.
    """

    def __init__(self, endpoint: str, grpc_address: str | None, prefix: str) -> None:
        """Make the tables.

        Args:
            endpoint: URL of the HTTP endpoint.
            grpc_address: host:port of the gRPC endpoint; without it both sets get their requests over HTTP.
            prefix: What all names of tables begin with.
        """
        self.prefix = f"{prefix}a-"
        self.sent = 0
        self._endpoint = endpoint
        self._grpc_address = grpc_address
        self._first, self._second, self._rough = (_World(f"{prefix}{name}-") for name in "abc")
        self._http = HttpTransport(endpoint)
        self._grpc = None if grpc_address is None else GrpcTransport(grpc_address)
        self._channel = None if grpc_address is None else grpc.insecure_channel(grpc_address)
        self._made = 0
        for world in (self._first, self._second, self._rough):
            create_shared_tables(self._http, world.prefix)

    def close(self) -> None:
        """Delete the tables, close the connections."""
        for world in (self._first, self._second, self._rough):
            delete_tables(self._http, world.prefix)
        self._http.close()
        if self._grpc is not None and self._channel is not None:
            self._grpc.close()
            self._channel.close()

    # --- requests as members ---

    def send(self, operation: str, body: str) -> Answers | None:
        """Send a request to both sets and judge the answers; None if it would wreck them."""
        if operation in TABLE_OPERATIONS and self._would_wreck(operation, body):
            return None
        over_grpc = (
            self._grpc is not None
            and operation in IMPLEMENTED_OPERATIONS
            and len(body) < 1_000_000
            and self._grpc.can_send(operation, body)
        )
        answers = Answers(Outcome(), transports="http and grpc" if over_grpc else "http twice")
        deadline = time.monotonic() + LAG_SECONDS_MAX
        while True:
            first, second = self._send_both(operation, body, answers, over_grpc=over_grpc)
            if answers.complaint:
                return answers
            differs = self._difference(operation, body if over_grpc else None, first, second)
            if not differs:
                break
            # A read that is not strong may show an older state for a while; a write that differs will stay so.
            if time.monotonic() > deadline or not _is_weak_read(operation, body):
                answers.complaint = f"the two sets of tables answer differently: {differs}"
                break
            time.sleep(0.05)
        if operation == "CreateTable" and not first.code:
            self._made += 1
            if self._made % 20 == 0:
                self.sweep()
        return answers

    def _send_both(
        self, operation: str, body: str, answers: Answers, *, over_grpc: bool
    ) -> tuple[Outcome, Outcome]:
        found = []
        for world in (self._first, self._second):
            text = body.replace(self._first.prefix, world.prefix)
            # Only where it belongs: as an attribute's value it would make the tables unequal.
            text = text.replace(_TOKEN_MEMBER, f'"NextToken": {json.dumps(world.token)}')
            transport = self._grpc if over_grpc and world is self._second else self._http
            assert transport is not None
            began = time.monotonic()
            self.sent += 1
            try:
                outcome = transport.send(operation, text)
            except (OSError, ValueError, http.client.HTTPException) as error:
                outcome = Outcome(malformed=f"no proper answer: {error!r}")
            answers.seconds = max(answers.seconds, time.monotonic() - began)
            if not found:
                answers.outcome = outcome
            answers.complaint = answers.complaint or complaint(operation, outcome)
            if answers.seconds > SECONDS_MAX:
                answers.complaint = f"it took {answers.seconds:.1f} s"
            token = outcome.members.get("NextToken")
            if isinstance(token, str):
                world.token = token
            found.append(outcome)
        return found[0], found[1]

    def _difference(self, operation: str, said: str | None, first: Outcome, second: Outcome) -> str:
        """How answers differ; `said` is the request's body if the second went over gRPC."""
        same = {
            self._second.prefix: self._first.prefix,
            self._first.token: PAGE_TOKEN,
            self._second.token: PAGE_TOKEN,
        }
        one, other = comparable(first, same), comparable(second, same)
        if operation in _LOOSE and "SerializationException" not in (first.code, second.code):
            return ""
        if said is not None and second.message == UNDECODABLE:
            return ""
        if first.code and second.code and said is not None:
            # The entries of a protobuf map have no order, so which of several mistakes is named first may differ.
            if second.is_cut or (first.code == second.code and _has_wide_map(said)):
                one, other = first.code, second.code
        elif not first.code and not second.code:
            # How much of a large batch is read at once depends on which answer comes first.
            if one.get("UnprocessedKeys") or other.get("UnprocessedKeys"):
                return ""
            one, other = ({k: v for k, v in o.items() if v not in ([], {})} for o in (one, other))
        return "" if one == other else f"{str(one)[:3000]} and {str(other)[:3000]}"

    def _would_wreck(self, operation: str, body: str) -> bool:
        """Whether a request could take shared tables away, or make tables that are too large or not ours."""
        try:
            members = json.loads(body)
        except (ValueError, RecursionError):
            return False
        if not isinstance(members, dict):
            return False
        name = str(members.get("TableName")).rpartition("/")[2]
        if operation == "DeleteTable":
            return name.removeprefix(self.prefix) in SHARED_TABLES or not name.startswith(
                self.prefix
            )
        if operation == "CreateTable":
            tags = members.get("Tags")
            for tag in tags if isinstance(tags, list) else ():
                value = str(tag.get("Value")) if isinstance(tag, dict) else ""
                if value.strip().isdecimal() and PARTITIONS_MAX < int(value[:9]) < 1000:
                    return True
            return bool(re.fullmatch(TABLE_NAME_PATTERN, name)) and not name.startswith(self.prefix)
        return False

    def wait_for_tables(self) -> None:
        """Return when the tables that requests are made for, if they exist, are active."""
        for world in (self._first, self._second):
            name = f"{world.prefix}own"
            if not self._http.send("DescribeTable", json.dumps({"TableName": name})).code:
                wait_for_table(self._http, name)

    def sweep(self) -> None:
        """Delete the tables that requests have made."""
        for world in (self._first, self._second):
            delete_tables(self._http, f"{world.prefix}own")

    # --- requests as bytes ---

    def send_bytes(self, seed: Seed, chance: random.Random) -> str:
        """Send a request over HTTP with some of its bytes changed; what is wrong with the answer."""
        body = seed.body.replace(self.prefix, self._rough.prefix)[:100_000]
        data = bytearray(
            request(body.encode("utf-8", "replace"), f"DynamoDB_20120810.{seed.operation}")
        )
        head = data.index(b"\r\n\r\n") + 4
        for _ in range(chance.choice((1, 2, 8))):
            at = chance.randrange(min(head, len(data)) if chance.random() < 0.7 else len(data))
            if chance.random() < 0.7:
                data[at] = chance.randrange(256)
            else:
                data[at : at + chance.choice((0, 1, 5))] = chance.randbytes(
                    chance.choice((0, 1, 3, 400))
                )
        self.sent += 1
        began = time.monotonic()
        try:
            status, answer = exchange(self._endpoint, bytes(data), end=True)
        except OSError as error:
            return f"no proper answer to {bytes(data)!r}: {error!r}"
        if status >= 500 or time.monotonic() - began > SECONDS_MAX:
            return f"{status} {answer!r} to {bytes(data)!r}"
        return ""

    def send_garbage(self, seed: Seed, chance: random.Random) -> str:
        """Send a message over gRPC with some of its bytes changed; what is wrong with the answer."""
        request_type = getattr(dynamodb_pb2, f"{seed.operation}Request", None)
        if self._channel is None or request_type is None:
            return ""
        try:
            members = json.loads(seed.body.replace(self.prefix, self._rough.prefix))
            data = bytearray(from_members(members, request_type).SerializeToString()) or bytearray(
                b"\x0a"
            )
        except (ValueError, OverflowError, AttributeError):
            return ""
        for _ in range(chance.choice((1, 1, 3))):
            data[chance.randrange(len(data))] = chance.randrange(256)
        if chance.random() < 0.2:
            data = data[: chance.randrange(len(data) + 1)]
        self.sent += 1
        try:
            self._channel.unary_unary(f"/quorate.v1.DynamoDB/{seed.operation}")(
                bytes(data), timeout=SECONDS_MAX
            )
        except grpc.RpcError as error:
            if error.code() not in _GRPC_REFUSALS:
                return f"{error.code()} {error.details()} to {bytes(data)!r}"
        return ""


def _has_wide_map(body: str) -> bool:
    """Whether there is a map with several entries below the members of a request."""
    pending = list(json.loads(body).values())
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            if len(value) > 1:
                return True
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
    return False


def _is_weak_read(operation: str, body: str) -> bool:
    if operation == "ExecuteStatement" or operation == "BatchExecuteStatement":
        return "select" in body.lower() and "insert" not in body.lower()
    return operation in ("GetItem", "BatchGetItem", "Query", "Scan")
