"""Flags that are environment variables too."""

import pytest

from proto.flags import FlagParser, add_process_flags, address_list, listen_address


def _parser(**environment: str) -> FlagParser:
    parser = FlagParser(prog="thing", environment=environment)
    parser.add_argument("--http-listen", type=listen_address, required=True)
    parser.add_argument("--routers", type=int, default=1)
    parser.add_argument_group("more").add_argument("--catalog", type=address_list)
    add_process_flags(parser)
    return parser


def test_environment_fills_what_the_command_line_leaves_out():
    flags = _parser(
        QUORATE_HTTP_LISTEN="127.0.0.1:1",
        QUORATE_ROUTERS="3",
        QUORATE_INSECURE="true",
        QUORATE_LOG_FORMAT="json",
        QUORATE_CATALOG="a:1, b:2",
    ).parse_args(["--routers", "2"])
    assert flags.http_listen == "127.0.0.1:1"
    assert flags.routers == 2
    assert flags.insecure is True
    assert flags.log_format == "json"
    assert flags.catalog == ["a:1", "b:2"]


def test_defaults():
    flags = _parser(QUORATE_INSECURE="0").parse_args(["--http-listen", "127.0.0.1:1"])
    assert (flags.routers, flags.insecure, flags.log_format, flags.catalog) == (
        1,
        False,
        "auto",
        None,
    )


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "required: --http-listen"),
        ({"QUORATE_HTTP_LISTEN": "nowhere"}, "QUORATE_HTTP_LISTEN: 'nowhere': expected host:port"),
        ({"QUORATE_ROUTERS": "many"}, "QUORATE_ROUTERS: invalid int value: 'many'"),
        ({"QUORATE_INSECURE": "perhaps"}, "QUORATE_INSECURE: expected true or false"),
        ({"QUORATE_LOG_FORMAT": "xml"}, "QUORATE_LOG_FORMAT: 'xml' is none of json, text, auto"),
        ({"QUORATE_CATALOG": ","}, "QUORATE_CATALOG: expected host:port,host:port"),
    ],
)
def test_bad_environment_is_an_error_that_names_the_variable(environment, message, capsys):
    with pytest.raises(SystemExit) as ending:
        _parser(**environment).parse_args([])
    assert ending.value.code == 2
    assert message in capsys.readouterr().err


def test_help_tells_the_rule_once():
    parser = _parser()
    parser.format_help()
    assert parser.format_help().count("QUORATE_SOME_FLAG") == 1


def test_abbreviations_are_refused(capsys):
    with pytest.raises(SystemExit):
        _parser().parse_args(["--http", "127.0.0.1:1"])
