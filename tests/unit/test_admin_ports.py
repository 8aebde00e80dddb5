"""Reserved and remembered ports."""

import json
import socket

import pytest

from admin.ports import PortBook, PortTaken

HOST = "127.0.0.1"


def _listen(port: int, *options: int) -> socket.socket:
    server = socket.socket()
    for option in options:
        server.setsockopt(socket.SOL_SOCKET, option, 1)
    server.bind((HOST, port))
    server.listen()
    return server


@pytest.fixture
def book(tmp_path):
    book = PortBook(tmp_path)
    yield book
    book.close()


def test_ports_are_remembered(tmp_path):
    first = PortBook(tmp_path)
    ports = [first.reserve(name, HOST) for name in ("a", "b")]
    assert len(set(ports)) == 2
    first.save()
    first.close()
    second = PortBook(tmp_path)
    assert [second.reserve(name, HOST) for name in ("a", "b")] == ports
    second.close()


def test_what_an_earlier_cluster_used_is_not_forgotten(tmp_path, book):
    (tmp_path / "ports.json").write_text('{"old": 4711}')
    book = PortBook(tmp_path)
    book.reserve("new", HOST)
    book.save()
    book.close()
    assert json.loads((tmp_path / "ports.json").read_text())["old"] == 4711


@pytest.mark.parametrize("text", ["", "[1]", '{"a": "x"}', '{"a": 0}', '{"a": 70000}'])
def test_a_damaged_file_means_new_ports(tmp_path, text):
    (tmp_path / "ports.json").write_text(text)
    book = PortBook(tmp_path)
    assert 0 < book.reserve("a", HOST) <= 65535
    book.close()


def test_servers_bind_beside_the_reservation(book):
    port = book.reserve("link", HOST)
    with _listen(port, socket.SO_REUSEADDR), socket.create_connection((HOST, port)):
        pass


def test_routers_share_a_port(book):
    port = book.reserve("http", HOST, shared=True)
    with _listen(port, socket.SO_REUSEPORT), _listen(port, socket.SO_REUSEPORT):
        pass


def test_a_reserved_port_is_never_given_to_somebody_else(book):
    port = book.reserve("link", HOST)
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind((HOST, port))


def test_a_port_that_was_asked_for_and_is_taken_is_an_error(book):
    with (
        _listen(0, socket.SO_REUSEADDR) as server,
        pytest.raises(PortTaken, match=r"http.*in use"),
    ):
        book.reserve("http", HOST, server.getsockname()[1], shared=True)


def test_another_clusters_shared_port_is_taken_too(book):
    with (
        _listen(0, socket.SO_REUSEPORT, socket.SO_REUSEADDR) as server,
        pytest.raises(PortTaken, match="in use"),
    ):
        book.reserve("http", HOST, server.getsockname()[1], shared=True)


def test_a_remembered_port_that_is_taken_is_replaced(tmp_path, caplog):
    with _listen(0) as server:
        port = server.getsockname()[1]
        (tmp_path / "ports.json").write_text(json.dumps({"a": port}))
        book = PortBook(tmp_path)
        assert book.reserve("a", HOST) != port
        book.close()
    assert "remembered port is taken" in caplog.text


def test_an_address_that_is_not_ours(book):
    with pytest.raises(PortTaken, match="cannot listen on 192"):
        book.reserve("http", "192.0.2.1")
