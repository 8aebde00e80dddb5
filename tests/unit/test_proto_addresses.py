"""Addresses as flags give them, and the rule that nothing listens beyond loopback unasked."""

import pytest

from proto.addresses import (
    ListenRefused,
    check_loopback,
    format_address,
    is_loopback,
    parse_listen,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        ("[::1]:8000", ("::1", 8000)),
        (":9090", ("0.0.0.0", 9090)),
        ("storage-az1-0.quorate:0", ("storage-az1-0.quorate", 0)),
    ],
)
def test_parse_listen(text, expected):
    assert parse_listen(text) == expected


@pytest.mark.parametrize(
    "text", ["", "8000", "host", "host:", "host:x", "host:70000", "host:-1", "::1:80", "h:٣"]
)
def test_parse_listen_refuses(text):
    with pytest.raises(ValueError, match=r"port|expected|IPv6"):
        parse_listen(text)


def test_format_address_round_trips():
    for host, port in (("127.0.0.1", 1), ("::1", 2), ("node", 3)):
        assert parse_listen(format_address(host, port)) == (host, port)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("example.com", False),
    ],
)
def test_is_loopback(host, expected):
    assert is_loopback(host) is expected


def test_check_loopback_refuses_with_the_flag_that_allows(caplog):
    check_loopback("127.0.0.1:80", False)
    with pytest.raises(ListenRefused, match=r"0\.0\.0\.0:80.*--insecure"):
        check_loopback("0.0.0.0:80", False)
    assert not caplog.records
    check_loopback("0.0.0.0:80", True)
    assert [record.address for record in caplog.records] == ["0.0.0.0:80"]
