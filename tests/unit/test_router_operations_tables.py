"""Table operations through the dispatcher, against a catalog in memory and a control plane of a few lines."""

import asyncio
import json

import pytest

from datamodel.catalog_rows import JobRow, PartitionRow, ReplicaRow, job_key, table_key
from datamodel.key_encoding import partition_bounds
from datamodel.table_descriptions import initial_partitions
from proto.catalog_client import CatalogClient, insert, remove, update
from router.context import RequestContext, Services
from router.dispatch import Dispatcher, handlers
from router.metrics import RouterMetrics
from router.partition_map import PartitionMap
from router.table_sizes import TableSizes
from tests.unit.catalog_fakes import FakeCluster

ARN = "arn:aws:dynamodb:us-east-1:000000000000:table/"
CREATE = {
    "AttributeDefinitions": [{"AttributeName": "pk", "AttributeType": "S"}],
    "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}],
    "BillingMode": "PAY_PER_REQUEST",
}


class Router:
    """A dispatcher over one fake cluster; `works` says whether jobs get done."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.catalog = CatalogClient(cluster)
        self.works = True
        self.tasks = set()
        loop = asyncio.get_running_loop()
        metrics = RouterMetrics()
        services = Services(
            cluster,
            PartitionMap(self.catalog, metrics, loop.time, self.spawn),
            self.catalog,
            metrics,
            "us-east-1",
            "000000000000",
            loop.time,
            lambda: 1_700_000_000.5,
            TableSizes(),
        )
        self.dispatcher = Dispatcher(services, handlers())
        self.catalog.subscribe(self.hear)
        self.catalog.start()

    def spawn(self, coroutine):
        task = asyncio.get_running_loop().create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def hear(self, changes):
        for change in changes:
            if isinstance(change.new, JobRow) and self.works:
                self.spawn(self.work(change.new))

    async def work(self, job):
        await asyncio.sleep(0.01)
        table = self.catalog.view.tables[job.table_name]
        if job.kind == "create_table":
            count = initial_partitions(table)
            bounds = partition_bounds(table.table_id, count)
            rows = [
                PartitionRow(
                    table.table_id * 1000 + i,
                    table.table_id,
                    bounds[i],
                    bounds[i + 1],
                    1,
                    (ReplicaRow(1, "n"),),
                )
                for i in range(count)
            ]
            writes = [insert(row) for row in rows]
            await self.catalog.write([*writes, update(table.with_status("ACTIVE")), remove(job)])
        else:
            await self.catalog.write([remove(table), remove(job)])

    async def call(self, operation, **members):
        future = asyncio.get_running_loop().create_future()

        def reply(status, body):
            future.set_result((status, json.loads(body or b"{}")))

        body = json.dumps(members).encode()
        self.dispatcher.dispatch(operation, body, RequestContext(b"R" * 52), reply)
        return await future

    async def ok(self, operation, **members):
        status, body = await self.call(operation, **members)
        assert status == 200, body
        return body

    async def fails(self, operation, **members):
        status, body = await self.call(operation, **members)
        assert status != 200
        code = body["__type"].partition("#")[2]
        return status, code, body.get("message", body.get("Message"))


def run(scenario):
    async def wrapped():
        router = Router(FakeCluster())
        try:
            async with asyncio.timeout(20):
                await router.catalog.ready()
                await scenario(router)
        finally:
            await router.catalog.stop()

    asyncio.run(wrapped())


def test_a_table_is_active_at_first_sight_though_the_answer_says_creating():
    async def scenario(router):
        created = (await router.ok("CreateTable", TableName="orders", **CREATE))["TableDescription"]
        assert created["TableStatus"] == "CREATING"
        assert created["CreationDateTime"] == 1_700_000_000.5
        assert created["TableArn"] == ARN + "orders"
        assert "WarmThroughput" not in created
        shown = (await router.ok("DescribeTable", TableName=ARN + "orders"))["Table"]
        assert shown["TableStatus"] == "ACTIVE"
        assert shown["TableId"] == created["TableId"]
        assert (shown["ItemCount"], shown["TableSizeBytes"]) == (0, 0)
        other = (await router.ok("CreateTable", TableName="other", **CREATE))["TableDescription"]
        assert other["TableId"] != created["TableId"]
        ids = {table.table_id for table in router.catalog.view.tables.values()}
        assert ids == {256, 257}

    run(scenario)


def test_sizes_are_summed_over_partitions_and_remembered():
    async def scenario(router):
        tags = [{"Key": "quorate:partitions", "Value": "2"}]
        await router.ok("CreateTable", TableName="orders", Tags=tags, **CREATE)
        router.cluster.stats = {256_000: (3, 30), 256_001: (4, 40)}
        shown = (await router.ok("DescribeTable", TableName="orders"))["Table"]
        assert (shown["ItemCount"], shown["TableSizeBytes"]) == (7, 70)
        router.cluster.stats = {256_001: (5, 50)}
        shown = (await router.ok("DescribeTable", TableName="orders"))["Table"]
        assert (shown["ItemCount"], shown["TableSizeBytes"]) == (8, 80)

    run(scenario)


def test_creating_a_table_twice():
    async def scenario(router):
        outcomes = await asyncio.gather(
            *(router.call("CreateTable", TableName="orders", **CREATE) for _ in range(5))
        )
        assert sorted(status for status, _ in outcomes) == [200, 400, 400, 400, 400]
        assert await router.fails("CreateTable", TableName="orders", **CREATE) == (
            400,
            "ResourceInUseException",
            "Table already exists: orders",
        )

    run(scenario)


def test_tables_created_at_once_get_numbers_of_their_own():
    async def scenario(router):
        names = [f"table-{n:02}" for n in range(12)]
        await asyncio.gather(*(router.ok("CreateTable", TableName=n, **CREATE) for n in names))
        tables = router.catalog.view.tables
        assert sorted(tables) == names
        assert len({table.table_id for table in tables.values()}) == len(names)

    run(scenario)


def test_a_table_in_the_making_is_in_use(monkeypatch):
    monkeypatch.setattr("router.operations.table_access.HOLD_S", 0.05)

    async def scenario(router):
        router.works = False
        await router.ok("CreateTable", TableName="orders", **CREATE)
        shown = (await router.ok("DescribeTable", TableName="orders"))["Table"]
        assert shown["TableStatus"] == "CREATING"
        in_use = (
            400,
            "ResourceInUseException",
            "Attempt to change a resource which is still in use: Table is being created: orders",
        )
        assert await router.fails("DeleteTable", TableName="orders") == in_use
        assert await router.fails("CreateTable", TableName="orders", **CREATE) == in_use
        tags = [{"Key": "a", "Value": "b"}]
        arn = ARN + "orders"
        assert await router.fails("TagResource", ResourceArn=arn, Tags=tags) == in_use
        change = {"TableName": "orders", "DeletionProtectionEnabled": True}
        assert await router.fails("UpdateTable", **change) == in_use

    run(scenario)


def test_a_deleted_table_is_gone_though_the_answer_says_deleting():
    async def scenario(router):
        await router.ok("CreateTable", TableName="orders", **CREATE)
        deleted = (await router.ok("DeleteTable", TableName="orders"))["TableDescription"]
        assert deleted["TableStatus"] == "DELETING"
        assert "KeySchema" not in deleted
        missing = (
            400,
            "ResourceNotFoundException",
            "Requested resource not found: Table: orders not found",
        )
        assert await router.fails("DescribeTable", TableName="orders") == missing
        assert await router.fails("DeleteTable", TableName="orders") == missing
        change = {"TableName": "orders", "DeletionProtectionEnabled": True}
        assert await router.fails("UpdateTable", **change) == missing
        again = (await router.ok("CreateTable", TableName="orders", **CREATE))["TableDescription"]
        assert router.cluster.row(table_key("orders")).table_id == 257
        assert again["TableStatus"] == "CREATING"

    run(scenario)


def test_a_deletion_that_takes_long(monkeypatch):
    monkeypatch.setattr("router.operations.table_access.HOLD_S", 0.05)

    async def scenario(router):
        await router.ok("CreateTable", TableName="orders", **CREATE)
        router.works = False
        await router.ok("DeleteTable", TableName="orders")
        shown = (await router.ok("DescribeTable", TableName="orders"))["Table"]
        assert shown["TableStatus"] == "DELETING"
        assert (await router.fails("DeleteTable", TableName="orders"))[2] == (
            "Attempt to change a resource which is still in use: Table is being deleted: orders"
        )
        assert (await router.fails("CreateTable", TableName="orders", **CREATE))[2] == (
            "Table already exists: orders"
        )
        job = router.cluster.row(job_key("delete-table-256"))
        assert (job.kind, job.step) == ("delete_table", "close")

    run(scenario)


def test_a_protected_table_is_not_deleted():
    async def scenario(router):
        await router.ok("CreateTable", TableName="orders", DeletionProtectionEnabled=True, **CREATE)
        assert await router.fails("DeleteTable", TableName="orders") == (
            400,
            "ValidationException",
            "Resource cannot be deleted as it is currently protected against deletion. "
            "Disable deletion protection first.",
        )
        await router.ok("UpdateTable", TableName="orders", DeletionProtectionEnabled=False)
        await router.ok("DeleteTable", TableName="orders")

    run(scenario)


def test_updates_are_there_at_once():
    async def scenario(router):
        await router.ok("CreateTable", TableName="orders", **CREATE)
        units = {"ReadCapacityUnits": 3, "WriteCapacityUnits": 4}
        body = await router.ok(
            "UpdateTable",
            TableName="orders",
            BillingMode="PROVISIONED",
            ProvisionedThroughput=units,
        )
        assert body["TableDescription"]["TableStatus"] == "UPDATING"
        shown = (await router.ok("DescribeTable", TableName="orders"))["Table"]
        assert shown["TableStatus"] == "ACTIVE"
        assert shown["ProvisionedThroughput"] == {"NumberOfDecreasesToday": 0, **units}
        assert shown["BillingModeSummary"]["BillingMode"] == "PROVISIONED"
        assert (await router.fails("UpdateTable", TableName="orders"))[2].startswith("At least one")
        # The rules that need no table come before the table is looked up.
        assert (await router.fails("UpdateTable", TableName="nobody"))[2].startswith("At least one")

    run(scenario)


def test_tables_are_listed_in_pages():
    async def scenario(router):
        for name in ("b-1", "a.1", "a-1", "Z-1"):
            await router.ok("CreateTable", TableName=name, **CREATE)
        assert await router.ok("ListTables") == {"TableNames": ["Z-1", "a-1", "a.1", "b-1"]}
        page = await router.ok("ListTables", Limit=2)
        assert page == {"TableNames": ["Z-1", "a-1"], "LastEvaluatedTableName": "a-1"}
        page = await router.ok("ListTables", Limit=2, ExclusiveStartTableName="a-1")
        assert page == {"TableNames": ["a.1", "b-1"]}
        page = await router.ok("ListTables", ExclusiveStartTableName="a-2")
        assert page == {"TableNames": ["a.1", "b-1"]}

    run(scenario)


def test_tags():
    async def scenario(router):
        tags = [{"Key": "k1", "Value": "a"}]
        await router.ok("CreateTable", TableName="orders", Tags=tags, **CREATE)
        arn = ARN + "orders"
        more = [{"Key": "k0", "Value": ""}, {"Key": "k1", "Value": "b"}]
        assert await router.ok("TagResource", ResourceArn=arn, Tags=more) == {}
        assert await router.ok("ListTagsOfResource", ResourceArn=arn) == {"Tags": more}
        keys = ["k1", "never"]
        assert await router.ok("UntagResource", ResourceArn=arn, TagKeys=keys) == {}
        assert await router.ok("ListTagsOfResource", ResourceArn=arn) == {"Tags": more[:1]}
        version = router.cluster.row(table_key("orders")).version
        await router.ok("TagResource", ResourceArn=arn, Tags=more[:1])
        assert router.cluster.row(table_key("orders")).version == version, "nothing changed"

    run(scenario)


@pytest.mark.parametrize(
    ("operation", "members", "message"),
    [
        ("TagResource", {"Tags": []}, "Atleast one Tag needs to be provided as Input."),
        ("UntagResource", {"TagKeys": []}, "Atleast one Tag Key needs to be provided as Input."),
        (
            "TagResource",
            {"Tags": [{"Key": f"n{n}", "Value": ""} for n in range(50)]},
            "Number of Tags exceed the current limit for the provided ResourceArn",
        ),
        (
            "TagResource",
            {"Tags": [{"Key": "quorate:partitions", "Value": "2"}]},
            "One or more parameter values were invalid: Tag quorate:partitions takes effect only when a "
            "table is created",
        ),
    ],
)
def test_tags_that_are_refused(operation, members, message):
    async def scenario(router):
        tags = [{"Key": "k1", "Value": "a"}]
        await router.ok("CreateTable", TableName="orders", Tags=tags, **CREATE)
        failure = await router.fails(operation, ResourceArn=ARN + "orders", **members)
        assert failure == (400, "ValidationException", message)

    run(scenario)


@pytest.mark.parametrize(
    ("operation", "members"),
    [
        ("TagResource", {"Tags": [{"Key": "a", "Value": "b"}]}),
        ("UntagResource", {"TagKeys": ["a"]}),
        ("ListTagsOfResource", {}),
    ],
)
def test_tags_of_no_table(operation, members):
    async def scenario(router):
        arn = ARN + "nobody"
        assert await router.fails(operation, ResourceArn=arn, **members) == (
            400,
            "ResourceNotFoundException",
            f"Requested resource not found: ResourceArn: {arn} not found",
        )

    run(scenario)


def test_while_the_catalog_is_away_reads_are_from_memory_and_writes_say_so():
    async def scenario(router):
        await router.ok("CreateTable", TableName="orders", **CREATE)
        router.cluster.is_away = True
        assert (await router.ok("DescribeTable", TableName="orders"))["Table"]["TableName"]
        assert await router.ok("ListTables") == {"TableNames": ["orders"]}
        assert await router.ok("ListTagsOfResource", ResourceArn=ARN + "orders") == {"Tags": []}
        assert (await router.fails("CreateTable", TableName="more", **CREATE))[:2] == (
            503,
            "ServiceUnavailable",
        )
        assert (await router.fails("DeleteTable", TableName="orders"))[0] == 503

    run(scenario)


def test_a_write_without_an_answer_is_an_internal_error():
    async def scenario(router):
        router.cluster.lose_answers = 1
        assert (await router.fails("CreateTable", TableName="orders", **CREATE))[:2] == (
            500,
            "InternalServerError",
        )
        assert (await router.call("CreateTable", TableName="orders", **CREATE))[0] == 400

    run(scenario)
