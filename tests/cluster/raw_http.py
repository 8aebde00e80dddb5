"""HTTP as bytes: what no client library would send."""

import json
import socket
from urllib.parse import urlsplit

SECONDS_PER_READ = 20


def exchange(endpoint: str, data: bytes, *, end: bool = False) -> tuple[int, bytes]:
    """Send raw bytes on a connection of their own; status (0: closed without a word) and all that came."""
    parts = urlsplit(endpoint)
    with socket.create_connection((parts.hostname, parts.port), SECONDS_PER_READ) as connection:
        received = b""
        try:
            connection.sendall(data)
            if end:
                connection.shutdown(socket.SHUT_WR)
            while b"\r\n\r\n" not in received:
                piece = connection.recv(65536)
                if not piece:
                    break
                received += piece
            head, _, body = received.partition(b"\r\n\r\n")
            length = next(
                (
                    int(line.split(b":")[1])
                    for line in head.split(b"\r\n")
                    if line.lower().startswith(b"content-length:")
                ),
                0,
            )
            while len(body) < length:
                piece = connection.recv(65536)
                if not piece:
                    break
                body += piece
        except (ConnectionResetError, BrokenPipeError):
            body = received.partition(b"\r\n\r\n")[2]
        status = int(received.split(b" ", 2)[1]) if received.startswith(b"HTTP/1.") else 0
        return status, body


def request(body: bytes, target: str = "DynamoDB_20120810.GetItem", **headers: str) -> bytes:
    """A POST with the headers that matter; further ones are named with underscores."""
    lines = {
        "Host": "localhost",
        "X-Amz-Target": target,
        "Content-Type": "application/x-amz-json-1.0",
        "Content-Length": str(len(body)),
        **{k.replace("_", "-"): v for k, v in headers.items()},
    }
    head = "".join(f"{k}: {v}\r\n" for k, v in lines.items())
    return f"POST / HTTP/1.1\r\n{head}\r\n".encode() + body


def error_of(body: bytes) -> str:
    """The short code of an error's body."""
    code: str = json.loads(body)["__type"].rpartition("#")[2]
    return code
