"""Clusters of a test's own, and clients. The shared cluster is in tests/conftest.py."""

import uuid

import pytest

from tests.cluster.harness import LocalCluster, running_cluster


@pytest.fixture
def own_cluster(tmp_path):
    """A cluster of the test's own, whose dead processes stay dead: break it as you like."""
    with running_cluster(tmp_path / "data", "--no-restart") as running:
        yield running


@pytest.fixture
def client(cluster: LocalCluster):
    """A boto3 client on the shared cluster."""
    return cluster.client()


@pytest.fixture
def name():
    """For a table of the test's own."""
    return f"t-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def things(client, name):
    """Name of a table of four partitions with a number as its sort key."""
    client.create_table(
        TableName=name,
        KeySchema=[
            {"AttributeName": "pk", "KeyType": "HASH"},
            {"AttributeName": "sk", "KeyType": "RANGE"},
        ],
        AttributeDefinitions=[
            {"AttributeName": "pk", "AttributeType": "S"},
            {"AttributeName": "sk", "AttributeType": "N"},
        ],
        BillingMode="PAY_PER_REQUEST",
        Tags=[{"Key": "quorate:partitions", "Value": "4"}],
    )
    client.get_waiter("table_exists").wait(TableName=name, WaiterConfig={"Delay": 1})
    yield name
    client.delete_table(TableName=name)
