"""Flags of a process, each also an environment variable: `--http-listen` is `QUORATE_HTTP_LISTEN`.

The command line wins over the environment, the environment over the default. Containers set variables, people
type flags, and both meet the same checks.
"""

import argparse
import os
from collections.abc import Mapping, Sequence
from typing import Any

from proto.addresses import parse_listen
from proto.logging_setup import LOG_FORMATS

ENVIRONMENT_PREFIX = "QUORATE_"

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off", ""})


class FlagParser(argparse.ArgumentParser):
    """An `ArgumentParser` whose every `--flag` can come from the environment too.

    A bad value in a variable ends the process as a bad flag does, with the variable's name in the message.
    """

    def __init__(
        self, *args: Any, environment: Mapping[str, str] | None = None, **kwargs: Any
    ) -> None:
        # A prefix of a flag is not the flag: abbreviations change meaning when a flag is added.
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)
        self._environment = os.environ if environment is None else environment

    def parse_known_args(  # type: ignore[override]  # the base class has overloads for namespaces
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """As the base class, with defaults from the environment."""
        for action in self._actions:
            name = environment_name(action)
            if name is not None and name in self._environment:
                action.default = self._from_environment(action, name, self._environment[name])
                action.required = False
        return super().parse_known_args(args, namespace)

    def _from_environment(self, action: argparse.Action, name: str, text: str) -> Any:
        if action.nargs == 0:
            if text.lower() in _TRUE:
                return action.const
            if text.lower() in _FALSE:
                return action.default
            self.error(f"environment variable {name}: expected true or false, not {text!r}")
        try:
            value = self._get_value(action, text)
        except argparse.ArgumentError as error:
            self.error(f"environment variable {name}: {error.message}")
        if action.choices is not None and value not in action.choices:
            choices = ", ".join(map(str, action.choices))
            self.error(f"environment variable {name}: {text!r} is none of {choices}")
        return value

    def format_help(self) -> str:
        """As the base class, with the rule about variables at the end."""
        if any(environment_name(action) for action in self._actions):
            note = "Every flag is also an environment variable: --some-flag is QUORATE_SOME_FLAG."
            if self.epilog is None:
                self.epilog = note
            elif note not in self.epilog:
                self.epilog = f"{self.epilog} {note}"
        return super().format_help()


def environment_name(action: argparse.Action) -> str | None:
    """The variable of a flag; None for positional arguments, `--help` and `--version`."""
    for option in action.option_strings:
        if option.startswith("--") and option not in ("--help", "--version"):
            return ENVIRONMENT_PREFIX + option[2:].upper().replace("-", "_")
    return None


def listen_address(text: str) -> str:
    """An argparse `type`: checks `host:port` and returns it as written."""
    try:
        parse_listen(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def address_list(text: str) -> list[str]:
    """An argparse `type`: `host:port,host:port,...`, at least one."""
    addresses = [part.strip() for part in text.split(",") if part.strip()]
    if not addresses:
        raise argparse.ArgumentTypeError("expected host:port,host:port,...")
    return [listen_address(address) for address in addresses]


def add_listen_flag(
    parser: argparse.ArgumentParser, flag: str, default: str, help_text: str | None = None
) -> None:
    """A flag for an address to listen on."""
    parser.add_argument(
        flag, type=listen_address, default=default, metavar="HOST:PORT", help=help_text
    )


def add_cluster_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of processes that serve a cluster: `--catalog`, `--region` and `--account-id`."""
    parser.add_argument(
        "--catalog",
        type=address_list,
        required=True,
        metavar="HOST:PORT,...",
        help="link addresses of storage nodes to ask where the catalog is",
    )
    parser.add_argument("--region", default="us-east-1", help="in ARNs (us-east-1)")
    parser.add_argument("--account-id", default="000000000000", help="in ARNs (000000000000)")


def add_process_flags(parser: argparse.ArgumentParser) -> None:
    """Flags that every process has: `--insecure` and `--log-format`."""
    parser.add_argument(
        "--insecure",
        action="store_true",
        help="allow addresses beyond loopback although nothing is authenticated or encrypted",
    )
    parser.add_argument(
        "--log-format",
        choices=LOG_FORMATS,
        default="auto",
        help="auto (the default): text on a terminal, JSON otherwise",
    )
