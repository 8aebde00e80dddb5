"""Structured logs."""

import io
import json
import logging

import pytest

from proto.logging_setup import TextFormatter, configure_logging


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _restore_logging():
    root = logging.getLogger()
    handlers, level, srcfile = list(root.handlers), root.level, logging._srcfile
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging._srcfile = srcfile
    logging.logThreads = logging.logMultiprocessing = True
    logging.captureWarnings(capture=False)


def test_json_line_has_the_extra_fields_under_their_own_names():
    out = io.StringIO()
    configure_logging("router-0", "json", out)
    logging.getLogger("router.dispatch").info("done", extra={"request_id": "R1", "raw": b"\x00"})
    line = json.loads(out.getvalue())
    assert line["process"] == "router-0"
    assert line["level"] == "info"
    assert line["logger"] == "router.dispatch"
    assert line["message"] == "done"
    assert line["request_id"] == "R1"
    assert line["raw"] == "b'\\x00'"
    assert line["time"].endswith("+00:00")


def test_extra_fields_never_replace_the_lines_own():
    out = io.StringIO()
    configure_logging("router-0", "json", out)
    logging.getLogger("x").info("done", extra={"level": "quiet", "logger": "other"})
    line = json.loads(out.getvalue())
    assert (line["level"], line["logger"]) == ("info", "x")


def test_exceptions_stay_in_one_json_line():
    out = io.StringIO()
    configure_logging("p", "json", out)
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger("x").exception("failed")
    (text,) = out.getvalue().splitlines()
    assert "ValueError: broken" in json.loads(text)["exception"]


@pytest.mark.parametrize(
    ("stream", "is_json"), [(io.StringIO(), True), (Terminal(), False)], ids=["pipe", "terminal"]
)
def test_auto_means_text_on_a_terminal_and_json_elsewhere(stream, is_json):
    configure_logging("p", "auto", stream)
    logging.getLogger("x").info("hello")
    assert stream.getvalue().startswith("{") is is_json


def test_text_line_shows_fields_and_cannot_be_forged():
    record = logging.makeLogRecord(
        {
            "name": "x",
            "levelname": "INFO",
            "levelno": 20,
            "msg": "hi",
            "peer": "a",
            "key": "b\nINFO c",
        }
    )
    line = TextFormatter(coloured=False).format(record)
    assert line.endswith("INFO    x: hi peer=a key='b\\nINFO c'")


def test_a_disabled_record_is_not_formatted():
    configure_logging("p", "json", io.StringIO())

    class Dear:
        def __str__(self) -> str:
            raise AssertionError("formatted")

    logging.getLogger("x").debug("%s", Dear())


def test_unknown_format_is_refused():
    with pytest.raises(ValueError, match="log format 'xml'"):
        configure_logging("p", "xml")
