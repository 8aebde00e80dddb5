"""Stored items: what is packed comes back, and damage anywhere is found."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodel.errors import Corruption
from datamodel.stored_items import (
    HEADER_SIZE,
    check_record,
    pack_record,
    record_body,
    record_log_index,
    record_region,
    record_size,
    record_timestamp,
)

BODY = b'{"pk":{"S":"a"}}'
RECORD = pack_record(BODY, 3, 1_700_000_000_000_000, 42, region=7)


@settings(max_examples=100)
@given(
    st.binary(max_size=200),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**16 - 1),
)
def test_what_is_packed_comes_back(body, size, timestamp, log_index, region):
    record = pack_record(body, size, timestamp, log_index, region)
    check_record(record, "here")
    assert len(record) == HEADER_SIZE + len(body)
    assert record_body(record) == body
    assert record_size(record) == size
    assert record_timestamp(record) == timestamp
    assert record_log_index(record) == log_index
    assert record_region(record) == region


def test_stored_bytes_never_change():
    header = "01000007" + "00000003" + "00060a24181e4000" + "000000000000002a" + "8b39ffba"
    assert bytes.fromhex(header) + BODY == RECORD


@pytest.mark.parametrize("at", range(len(RECORD)))
@pytest.mark.parametrize("bit", [0x01, 0x80])
def test_every_changed_bit_is_found(at, bit):
    damaged = bytearray(RECORD)
    damaged[at] ^= bit
    with pytest.raises(Corruption, match="key 0a"):
        check_record(bytes(damaged), "key 0a")


@pytest.mark.parametrize("length", [0, 1, HEADER_SIZE - 1, HEADER_SIZE, len(RECORD) - 1])
def test_a_cut_record_is_found(length):
    with pytest.raises(Corruption):
        check_record(RECORD[:length], "here")


def test_an_unknown_format_is_told():
    with pytest.raises(Corruption, match="expected format version 1, found version 2"):
        check_record(b"\x02" + RECORD[1:], "here")
