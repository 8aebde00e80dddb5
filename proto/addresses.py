"""Addresses as flags give them: reading `host:port`, and the rule that nothing listens beyond loopback
unless told to (`check_loopback`). Shared by all processes; light to import.
"""

import ipaddress
import logging

log = logging.getLogger(__name__)


class ListenRefused(SystemExit):
    """An address that this process may not listen on; uncaught, it ends the process with its message."""


def parse_listen(text: str) -> tuple[str, int]:
    """Host and port of `host:port`, `[v6]:port` or `:port` (every interface); port 0 picks a free one.

    Raises:
        ValueError: No such thing; argparse turns it into its own error.
    """
    host, colon, port_text = text.rpartition(":")
    if not colon:
        raise ValueError(f"{text!r}: expected host:port")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{text!r}: an IPv6 address is written [address]:port")
    if not (port_text.isascii() and port_text.isdigit()) or int(port_text) > 65535:
        raise ValueError(f"{text!r}: the port must be a number from 0 to 65535")
    return host or "0.0.0.0", int(port_text)


def format_address(host: str, port: int) -> str:
    """`host:port`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a socket bound to `host`. Names other than localhost: no."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_loopback(address: str, insecure: bool) -> None:
    """Refuse an address beyond loopback unless `insecure`, and log a warning then.

    Requests are not authenticated and links are not encrypted: whoever reaches the port owns the data.

    Raises:
        ListenRefused: With the flag that would allow it.
        ValueError: `address` is not `host:port`.
    """
    host, _ = parse_listen(address)
    if is_loopback(host):
        return
    if not insecure:
        raise ListenRefused(
            f"quorate: refusing to listen on {address}: it is not a loopback address, and nothing "
            "authenticates those who connect. Keep the network closed to strangers and pass --insecure "
            "to allow it."
        )
    log.warning(
        "listening beyond loopback without authentication or encryption",
        extra={"address": address},
    )
