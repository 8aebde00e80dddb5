"""Catalog rows: what is stored comes back, keys and ranges find it, damage is told apart from the unknown."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodel import catalog_rows as rows
from datamodel.items import decode_item, encode_item, normalise_item
from datamodel.key_encoding import KeySchema
from datamodel.local_indexes import LocalIndex
from datamodel.table_descriptions import TableDescription

TABLE = TableDescription(
    name="orders",
    table_id=300,
    uuid="0b7e3b0e-9a3c-4d53-8a7f-5a9ad9b2f3c1",
    status="ACTIVE",
    key_schema=KeySchema("customer", "S", "order", "N"),
    attribute_definitions=(("customer", "S"), ("order", "N")),
    billing_mode="PROVISIONED",
    created_ms=1_700_000_000_123,
    read_units=5,
    write_units=7,
    on_demand_since_ms=1,
    increased_ms=2,
    decreased_ms=3,
    decreases=4,
    tags=(("a", "1"), ("b", "")),
    table_class="STANDARD",
    table_class_ms=5,
    deletion_protection=True,
    max_read_units=6,
    max_write_units=7,
    warm_read_units=8,
    warm_write_units=9,
    version=12,
    local_indexes=(
        LocalIndex("i-1", "by", "N", "ALL"),
        LocalIndex("i-2", "of", "B", "INCLUDE", ("x", "y")),
    ),
)
PLAIN_TABLE = TableDescription(
    name="t-1",
    table_id=256,
    uuid="u",
    status="CREATING",
    key_schema=KeySchema("pk", "B"),
    attribute_definitions=(("pk", "B"),),
    billing_mode="PAY_PER_REQUEST",
    created_ms=0,
)
PARTITION = rows.PartitionRow(
    group=17,
    table_id=300,
    start=b"\x00\xff",
    end=b"\x01",
    epoch=3,
    replicas=(rows.ReplicaRow(1, "storage-az1-0.0a1b2c3d"), rows.ReplicaRow(4, "n2")),
    version=2,
)
NODE = rows.NodeRow("n1.abc", "n1", "az1", "127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", 99, 4)
JOB = rows.JobRow("j1", "create_table", "place", "orders", 300, 5, {"first": 1, "text": "x"}, 3)
SETTING = rows.SettingRow(rows.NEXT_TABLE_ID, {"value": 256, "note": "n"}, 8)
ALL = [TABLE, PLAIN_TABLE, PARTITION, NODE, JOB, SETTING]


@pytest.mark.parametrize("row", ALL, ids=lambda row: type(row).__name__)
def test_a_row_comes_back_from_its_item(row):
    item = rows.row_item(row)
    assert normalise_item(item)[0] == item, "a row's item must be normalised already"
    assert rows.parse_row(decode_item(encode_item(item))) == row


@settings(max_examples=30)
@given(
    start=st.binary(max_size=40),
    end=st.binary(max_size=40),
    replicas=st.lists(
        st.tuples(st.integers(1, 2**40), st.text(min_size=1, max_size=9)), max_size=4
    ),
)
def test_partitions_of_any_range_come_back(start, end, replicas):
    members = tuple(rows.ReplicaRow(number, node) for number, node in replicas)
    row = rows.PartitionRow(9, 300, start, end, 1, members)
    assert rows.parse_row(rows.row_item(row)) == row


def test_keys_of_all_kinds_differ_and_belong_to_group_0():
    keys = [rows.row_key(row) for row in ALL]
    assert len(set(keys)) == len(ALL)
    start, end = rows.CATALOG_RANGE
    assert all(start <= key < end for key in keys)
    assert all(rows.ROWS_RANGE[0] <= key < rows.ROWS_RANGE[1] for key in keys)
    assert rows.row_key(TABLE) == rows.table_key("orders")
    assert rows.row_key(PARTITION) == rows.partition_key(300, 17)
    assert rows.row_key(NODE) == rows.node_key("n1.abc")
    assert rows.row_key(JOB) == rows.job_key("j1")
    assert rows.row_key(SETTING) == rows.setting_key(rows.NEXT_TABLE_ID)


@pytest.mark.parametrize(
    ("key_range", "inside"),
    [
        (rows.tables_range(), [TABLE, PLAIN_TABLE]),
        (rows.partitions_range(300), [PARTITION]),
        (rows.partitions_range(30), []),
        (rows.nodes_range(), [NODE]),
    ],
)
def test_a_range_holds_the_rows_of_its_kind_only(key_range, inside):
    start, end = key_range
    assert [row for row in ALL if start <= rows.row_key(row) < end] == inside


def test_tables_are_listed_by_the_bytes_of_their_names():
    names = ["Zeta", "a", "a-b", "a.b", "a_b", "aa", "b"]
    assert sorted(names, key=rows.table_key) == sorted(names, key=str.encode)


def test_partitions_of_a_table_are_listed_by_group_number():
    assert rows.partition_key(300, 9) < rows.partition_key(300, 10) < rows.partition_key(300, 100)


def test_an_unknown_kind_is_skipped_and_unknown_attributes_are_ignored():
    assert rows.parse_row({"pk": {"S": "backup"}, "sk": {"S": "x"}}) is None
    assert rows.parse_row(rows.row_item(NODE) | {"later": {"S": "x"}}) == NODE


@pytest.mark.parametrize(
    "item",
    [
        {},
        {"pk": {"N": "1"}},
        {"pk": {"S": "node"}, "sk": {"S": "n"}},
        rows.row_item(NODE) | {"version": {"N": "x"}},
        rows.row_item(PARTITION) | {"start": {"S": "x"}},
    ],
)
def test_a_damaged_row_is_an_error(item):
    with pytest.raises(rows.BadRow):
        rows.parse_row(item)
