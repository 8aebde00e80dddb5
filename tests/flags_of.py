"""The parser that a process's `main` uses, without running the process."""

from collections.abc import Callable
from unittest import mock

from proto.flags import FlagParser


class _Parsed(Exception):
    def __init__(self, parser: FlagParser) -> None:
        super().__init__()
        self.parser = parser


def parser_of(main: Callable[[list[str]], int]) -> FlagParser:
    """Call `main` up to the point where it parses its flags, which must be the first thing it does."""

    def stop(parser: FlagParser, *_: object) -> None:
        raise _Parsed(parser)

    with mock.patch.object(FlagParser, "parse_args", stop):
        try:
            main([])
        except _Parsed as parsed:
            return parsed.parser
    raise AssertionError("main does not parse flags")
