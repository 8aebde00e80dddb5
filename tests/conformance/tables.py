"""The tables that the cases share: made once, each case keeps to keys of its own.

Real names carry a prefix of the run, so that a run on the real service touches nothing else there; `<table>`
in a transcript stands for the real name.
"""

import json
import time
from typing import Any, Final

from tests.conformance.transports import Transport

LOCAL_INDEXES: Final[dict[str, Any]] = {
    "AttributeDefinitions": [
        {"AttributeName": name, "AttributeType": kind}
        for name, kind in (("pk", "S"), ("sk", "S"), ("n", "N"), ("s", "S"), ("b", "B"))
    ],
    "LocalSecondaryIndexes": [
        {
            "IndexName": name,
            "KeySchema": [
                {"AttributeName": "pk", "KeyType": "HASH"},
                {"AttributeName": sort, "KeyType": "RANGE"},
            ],
            "Projection": projection,
        }
        for name, sort, projection in (
            ("all", "n", {"ProjectionType": "ALL"}),
            ("keys", "s", {"ProjectionType": "KEYS_ONLY"}),
            ("some", "n", {"ProjectionType": "INCLUDE", "NonKeyAttributes": ["v"]}),
            ("binary", "b", {"ProjectionType": "KEYS_ONLY"}),
        )
    ],
    "Tags": [{"Key": "quorate:partitions", "Value": "3"}],
}
# Short name: (types of partition and sort key, more members of CreateTable).
SHARED_TABLES: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "h": ("S", {}),
    "hn": ("N", {}),
    "hb": ("B", {}),
    "ss": ("SS", {}),
    "sn": ("SN", {}),
    "sb": ("SB", {}),
    "bn": ("BN", {}),
    # Several partitions on a local cluster; elsewhere the tag is just a tag.
    "split": ("S", {"Tags": [{"Key": "quorate:partitions", "Value": "4"}]}),
    "scan": ("SN", {"Tags": [{"Key": "quorate:partitions", "Value": "3"}]}),
    # With local indexes, on a local cluster in several partitions.
    "li": ("SS", LOCAL_INDEXES),
    # For the pages of a single scan: nothing else writes here.
    "small": ("S", {}),
}
READY_TIMEOUT_S: Final = 60.0


def create_request(name: str, key_types: str, **more: Any) -> dict[str, Any]:
    """CreateTable for a table whose key attributes are `pk` and, with two types, `sk`."""
    keys = list(zip(("pk", "sk"), key_types, strict=False))
    return {
        "TableName": name,
        "KeySchema": [
            {"AttributeName": attribute, "KeyType": kind}
            for (attribute, _), kind in zip(keys, ("HASH", "RANGE"), strict=False)
        ],
        "AttributeDefinitions": [
            {"AttributeName": attribute, "AttributeType": kind} for attribute, kind in keys
        ],
        "BillingMode": "PAY_PER_REQUEST",
        **more,
    }


def create_shared_tables(transport: Transport, prefix: str) -> None:
    """Make them and wait until they are ready."""
    for short, (key_types, more) in SHARED_TABLES.items():
        request = create_request(prefix + short, key_types, **more)
        outcome = transport.send("CreateTable", json.dumps(request))
        assert not outcome.code, f"{request}: {outcome}"
    for short in SHARED_TABLES:
        wait_for_table(transport, prefix + short)


def delete_tables(transport: Transport, prefix: str) -> None:
    """Delete every table of the run, those that cases left behind too."""
    start: dict[str, Any] = {"ExclusiveStartTableName": prefix}
    while True:
        answer = transport.send("ListTables", json.dumps(start)).members
        for name in answer.get("TableNames", ()):
            if not name.startswith(prefix):
                return
            transport.send(
                "UpdateTable", json.dumps({"TableName": name, "DeletionProtectionEnabled": False})
            )
            transport.send("DeleteTable", json.dumps({"TableName": name}))
        if "LastEvaluatedTableName" not in answer:
            return
        start = {"ExclusiveStartTableName": answer["LastEvaluatedTableName"]}


def wait_for_table(transport: Transport, name: str, *, gone: bool = False) -> None:
    """Wait until a table is ACTIVE, or with `gone` until there is none of this name."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while True:
        outcome = transport.send("DescribeTable", json.dumps({"TableName": name}))
        if gone and outcome.code == "ResourceNotFoundException":
            return
        if not gone and outcome.members.get("Table", {}).get("TableStatus") == "ACTIVE":
            return
        assert time.monotonic() < deadline, f"{name}: {outcome}"
        time.sleep(0.02)
