"""Structured logs of a process: one line per record on stderr, JSON for machines or text for people.

Call sites write `log.info("link closed", extra={"peer": name})`: the message is constant, what varies is in the
extra fields, which appear in the line under their own names. Nothing is formatted for a record whose level is
off. The time in a line is the wall clock's and orders nothing.
"""

import json
import logging
import os
import sys
from datetime import UTC, datetime
from typing import Literal, TextIO, TypeAlias, get_args

LogFormat: TypeAlias = Literal["json", "text", "auto"]
LOG_FORMATS: tuple[str, ...] = get_args(LogFormat)

LEVEL_VARIABLE = "QUORATE_LOG_LEVEL"

# What a bare record has: everything else on a record came from `extra`.
_RECORD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

_RESET = "\x1b[0m"
_COLOURS = {
    logging.DEBUG: "\x1b[2m",
    logging.WARNING: "\x1b[33m",
    logging.ERROR: "\x1b[31m",
    logging.CRITICAL: "\x1b[1;31m",
}


def configure_logging(
    process_name: str, fmt: LogFormat | str = "auto", stream: TextIO | None = None
) -> None:
    """Send the process's logs to stderr (or `stream`), replacing what was configured before.

    Args:
        process_name: Appears as `process` in JSON lines.
        fmt: "json", "text" (coloured on a terminal or with FORCE_COLOR, never with NO_COLOR), or "auto":
            text on a terminal, JSON otherwise.
        stream: Where lines go; stderr by default.

    The level is INFO, or what the environment variable QUORATE_LOG_LEVEL names.

    Raises:
        ValueError: An unknown format or level.
    """
    if fmt not in LOG_FORMATS:
        raise ValueError(f"log format {fmt!r}: expected one of {', '.join(LOG_FORMATS)}")
    out = stream if stream is not None else sys.stderr
    is_terminal = out.isatty()
    handler = logging.StreamHandler(out)
    if fmt == "json" or (fmt == "auto" and not is_terminal):
        handler.setFormatter(JsonFormatter(process_name))
    else:
        handler.setFormatter(TextFormatter(coloured=wants_colour(is_terminal)))
    # Where a record was made is found by walking the stack, and no line shows it: spare the cost.
    logging._srcfile = None
    logging.logThreads = False
    logging.logMultiprocessing = False
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(os.environ.get(LEVEL_VARIABLE, "INFO").upper())
    logging.captureWarnings(capture=True)


def wants_colour(is_terminal: bool) -> bool:
    """Whether to colour what a person reads, by the usual variables NO_COLOR and FORCE_COLOR."""
    return "NO_COLOR" not in os.environ and (is_terminal or "FORCE_COLOR" in os.environ)


def extra_fields(record: logging.LogRecord) -> dict[str, object]:
    """What the call site passed as `extra`."""
    return {name: value for name, value in vars(record).items() if name not in _RECORD_FIELDS}


def _timestamp(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON: time, level, process, logger, message, the extra fields, traceback."""

    def __init__(self, process_name: str) -> None:
        super().__init__()
        self._process_name = process_name

    def format(self, record: logging.LogRecord) -> str:
        """One line; a field that JSON has no form for appears as its `str`."""
        line: dict[str, object] = {
            "time": _timestamp(record).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "process": self._process_name,
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name, value in extra_fields(record).items():
            line.setdefault(name, value)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """A record for a reader: `12:00:00.123 INFO  proto.link: link closed peer=storage-az1-0`."""

    def __init__(self, *, coloured: bool) -> None:
        super().__init__()
        self._coloured = coloured

    def format(self, record: logging.LogRecord) -> str:
        """One line, and a traceback after it when there is one."""
        fields = "".join(f" {name}={_shown(value)}" for name, value in extra_fields(record).items())
        time = _timestamp(record).astimezone().strftime("%H:%M:%S.%f")[:-3]
        line = f"{time} {record.levelname:<7} {record.name}: {record.getMessage()}{fields}"
        colour = _COLOURS.get(record.levelno) if self._coloured else None
        if colour:
            line = f"{colour}{line}{_RESET}"
        if record.exc_info:
            line = f"{line}\n{self.formatException(record.exc_info)}"
        return line


def _shown(value: object) -> str:
    text = str(value)
    # What came from outside must not be able to fake a second line or a second field.
    return text if text.isprintable() and " " not in text and text else repr(text)
