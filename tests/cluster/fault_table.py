"""The table on which tests see what faults do."""

from tests.cluster.harness import LocalCluster, wait_until
from tests.cluster.linearizability import find_violation
from tests.cluster.workload import Answer, WireClient, Workload

TABLE = "faults"


def create_table(cluster: LocalCluster, partitions: int = 3, name: str = TABLE) -> None:
    """Returns when it is there."""
    client = WireClient(cluster.http)
    client.call(
        "CreateTable",
        TableName=name,
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
        Tags=[{"Key": "quorate:partitions", "Value": str(partitions)}],
    )
    wait_until(
        lambda: client.call("DescribeTable", TableName=name)["Table"]["TableStatus"] == "ACTIVE",
        30,
        "table active",
    )
    client.close()


def groups_of_table(cluster: LocalCluster) -> list[int]:
    status = cluster.status()
    return sorted(
        p["group"] for t in status["tables"] if t["name"] == TABLE for p in t["partitions"]
    )


def put(client: WireClient, key: str, value: int) -> None:
    client.call("PutItem", TableName=TABLE, Item={"pk": {"S": key}, "v": {"N": str(value)}})


def get(client: WireClient, key: str, *, strong: bool = True) -> int | None:
    answer = client.call("GetItem", TableName=TABLE, Key={"pk": {"S": key}}, ConsistentRead=strong)
    return int(answer["Item"]["v"]["N"]) if "Item" in answer else None


def assert_linearizable(load: Workload) -> None:
    for key, history in load.histories.items():
        violation = find_violation(history)
        assert violation is None, f"{key}: {violation}"


def wait_writable(cluster: LocalCluster, timeout_s: float = 20) -> None:
    """Every partition takes a write again."""
    client = WireClient(cluster.http)

    def writable() -> bool:
        try:
            for n in range(12):
                put(client, f"probe-{n}", n)
        except (Answer, OSError):
            return False
        return True

    wait_until(writable, timeout_s, "writes go on")
    client.close()
