"""A router's handlers over partition groups in memory, for tests.

Writes and pages run the storage node's own pure code, so that what passes here is what passes there.
Answers come at once.
"""

import asyncio
import json

from datamodel.catalog_rows import PartitionRow, ReplicaRow, row_key
from datamodel.key_encoding import KeySchema, partition_bounds
from datamodel.stored_items import pack_record, record_body, record_size
from datamodel.table_descriptions import TableDescription
from datamodel.wording import NEWEST, WORDINGS
from proto.catalog_view import CatalogView
from proto.messages import (
    Get,
    Query,
    Refused,
    Value,
    Write,
    Written,
    WrongPartition,
)
from router.context import RequestContext, Services
from router.dispatch import Dispatcher
from router.metrics import RouterMetrics
from router.operations import (
    batch_execute_statement,
    batch_get_item,
    batch_write_item,
    delete_item,
    describe_endpoints,
    describe_limits,
    execute_statement,
    get_item,
    put_item,
    query,
    scan,
    update_item,
)
from router.partition_map import PartitionMap
from storagenode.engines.engine import DATA
from storagenode.engines.memory_engine import MemoryEngine
from storagenode.replicas.evaluation import Refusal, evaluate
from storagenode.replicas.index_pages import IndexPageScan
from storagenode.replicas.indexing import Indexing
from storagenode.replicas.query_pages import PageScan

HANDLERS = {
    "GetItem": get_item.handle,
    "PutItem": put_item.handle,
    "UpdateItem": update_item.handle,
    "DeleteItem": delete_item.handle,
    "Query": query.handle,
    "Scan": scan.handle,
    "BatchGetItem": batch_get_item.handle,
    "BatchWriteItem": batch_write_item.handle,
    "ExecuteStatement": execute_statement.handle,
    "BatchExecuteStatement": batch_execute_statement.handle,
    "DescribeLimits": describe_limits.handle,
    "DescribeEndpoints": describe_endpoints.handle,
}


class FakeStorage:
    """What handlers need of `ClusterClient`.

    Attributes:
        groups: Range that each group owns.
        requests: Everything asked so far.
        weather: Answers given instead of the truth, oldest first.
    """

    def __init__(self):
        self.groups = {}
        self.requests = []
        self.leaders = []
        self.weather = []
        self.engine = MemoryEngine()
        self.collection_size_max = 10 << 30
        self._id = 0

    def next_id(self):
        self._id += 1
        return self._id

    def next_request_id(self):
        return b"harness:" + self.next_id().to_bytes(8, "big")

    def call(self, request, on_answer, deadline, leader=True):
        self.requests.append(request)
        self.leaders.append(leader)
        answer = self.weather.pop(0)(request.id) if self.weather else self._answer(request)
        on_answer(answer)

    def _answer(self, request):
        owned = self.groups.get(request.group)
        match request:
            case Get():
                if owned is None or not owned[0] <= request.key < owned[1]:
                    return WrongPartition(request.id, request.group)
                return Value(request.id, self.engine.get(DATA + request.key))
            case Query():
                if owned is None or not owned[0] <= request.start < owned[1]:
                    return WrongPartition(request.id, request.group)
                cursor = self.engine.iterate(
                    DATA + request.start, DATA + min(request.end, owned[1]), reverse=request.reverse
                )
                if request.part < 0 and not request.fetch:
                    page = PageScan(request, cursor)
                else:
                    page = IndexPageScan(request, cursor, self.engine.get)
                assert page.step(10_000_000)
                return page.page()
            case Write():
                if owned is None or not owned[0] <= request.actions[0].key < owned[1]:
                    return WrongPartition(request.id, request.group)
                return self._write(request)

    def _write(self, request):
        def read(key):
            record = self.engine.get(DATA + key)
            return None if record is None else (record_body(record), record_size(record))

        indexing = None
        if request.local_indexes:
            indexing = Indexing(request.local_indexes, read, self.collection_size_max)
        effect = evaluate(request.actions, read, keep_images=False, indexing=indexing)
        if isinstance(effect, Refusal):
            return Refused(request.id, effect.code, effect.message, effect.reasons)
        self.engine.write(
            (DATA + key, None if body is None else pack_record(body, size, 1, 1))
            for key, body, size in effect.mutations
        )
        return Written(request.id, effect.results)


class FakeCatalog:
    """What the partition map needs of `CatalogClient`; `hidden` rows only show when a table is refreshed."""

    def __init__(self):
        self.view = CatalogView()
        self.listeners = []
        self.hidden = []
        self.refreshed = []
        self.failure = None

    def subscribe(self, listener):
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)

    def change(self, rows=(), removed=()):
        changes = [self.view.apply(row_key(row), row) for row in rows]
        changes += [self.view.apply(row_key(row), None) for row in removed]
        changes = [change for change in changes if change is not None]
        for listener in self.listeners:
            listener(changes)

    async def refresh_table(self, name):
        self.refreshed.append(name)
        await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure
        rows, self.hidden = self.hidden, []
        self.change(rows)
        return self.view.tables.get(name)


def table(name="Things", sort=None, table_id=300, status="ACTIVE", version=1, local_indexes=()):
    """A table with a string partition key `pk` and, if `sort` is a type, a sort key `sk`."""
    schema = KeySchema("pk", "S", "sk" if sort else None, sort)
    definitions = (("pk", "S"), ("sk", sort)) if sort else (("pk", "S"),)
    return TableDescription(
        name=name,
        table_id=table_id,
        uuid="00000000-0000-0000-0000-000000000000",
        status=status,
        key_schema=schema,
        attribute_definitions=definitions,
        billing_mode="PAY_PER_REQUEST",
        created_ms=0,
        version=version,
        local_indexes=local_indexes,
    )


def partitions(table_id, count=1, first_group=1):
    """Rows of a table's partitions."""
    bounds = partition_bounds(table_id, count)
    return [
        PartitionRow(first_group + i, table_id, bounds[i], bounds[i + 1], 1, (ReplicaRow(1, "n1"),))
        for i in range(count)
    ]


VALIDATION = (400, "ValidationException")


def thing(pk, sk=None, **attributes):
    """An item, or its key, of `table()`."""
    item = {"pk": {"S": pk}}
    if sk is not None:
        item["sk"] = {"N": str(sk)}
    return {**item, **attributes}


class Harness:
    """A router without sockets."""

    def __init__(self, wordings=WORDINGS[NEWEST]):
        self.storage = FakeStorage()
        self.catalog = FakeCatalog()
        self.metrics = RouterMetrics()
        self.time = 1000.0
        self.tasks = []
        self.replies = []
        self.tables = PartitionMap(self.catalog, self.metrics, lambda: self.time, self.tasks.append)
        self.services = Services(
            client=self.storage,
            tables=self.tables,
            catalog=self.catalog,
            metrics=self.metrics,
            region="us-east-1",
            account_id="000000000000",
            now=lambda: self.time,
            wall_clock=lambda: 1_700_000_000.0,
        )
        self.dispatcher = Dispatcher(self.services, HANDLERS, wordings)

    def add_table(self, row=None, count=1, first_group=1):
        """Make a table known and served."""
        row = row or table()
        rows = partitions(row.table_id, count, first_group)
        for partition in rows:
            self.storage.groups[partition.group] = (partition.start, partition.end)
        self.catalog.change([row, *rows])
        return self

    def start(self, operation, request):
        """Dispatch; the reply, if it is there, is the last of `replies`."""
        body = request if isinstance(request, bytes) else json.dumps(request).encode()
        self.dispatcher.dispatch(
            operation,
            body,
            RequestContext(b"R" * 52),
            lambda status, answer: self.replies.append((status, json.loads(answer or b"null"))),
        )

    def run_tasks(self):
        """Run look-ups to their end."""
        while self.tasks:
            asyncio.run(self._gather())

    async def _gather(self):
        tasks, self.tasks[:] = list(self.tasks), []
        await asyncio.gather(*tasks)

    def request(self, operation, request):
        """Dispatch and return (status, body)."""
        before = len(self.replies)
        self.start(operation, request)
        self.run_tasks()
        assert len(self.replies) == before + 1, "a request has exactly one reply"
        return self.replies[-1]

    def ok(self, operation, **members):
        """A request that must succeed; its body."""
        members.setdefault("TableName", "Things")
        status, body = self.request(operation, members)
        assert status == 200, body
        return body

    def error(self, operation, **members):
        """A request that must fail; (status, short code, message)."""
        members.setdefault("TableName", "Things")
        status, body = self.request(operation, members)
        assert status != 200, body
        return status, body["__type"].split("#")[1], body.get("message", body.get("Message"))

    def put(self, *items):
        for item in items:
            self.ok("PutItem", Item=item)
