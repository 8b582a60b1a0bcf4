"""Command lines are understood as systemd's tools understand theirs."""

from __future__ import annotations

import pytest

from machinectl_py.cli.parse import parse
from machinectl_py.config.option import Option
from machinectl_py.errors import UsageError

OPTIONS = (
    Option(name="--directory", short="-D", value="PATH"),
    Option(name="--signal", short="-s", value="SIGNAL"),
    Option(name="--quiet", short="-q"),
    Option(name="--verbose", short="-v"),
    Option(name="--bind", value="PATH", many=True),
    Option(name="--json", value="MODE", choices=("pretty", "short")),
    Option(name="--log", short="-l", value="LEVEL", optional_value="debug"),
)


def understood(line, command=-1):
    arguments = parse(OPTIONS, line.split(), command=command)
    return arguments.values, arguments.words


@pytest.mark.parametrize("form", ["--signal=TERM", "--signal TERM", "-sTERM", "-s TERM"])
def test_a_value_is_joined_or_follows(form):
    assert understood(form) == ({"signal": "TERM"}, [])


def test_options_stand_before_and_after_words():
    assert understood("-q a --signal=9 b") == ({"quiet": True, "signal": "9"}, ["a", "b"])


def test_flags_are_bundled_and_the_last_may_take_a_value():
    assert understood("-qv") == ({"quiet": True, "verbose": True}, [])
    assert understood("-qsTERM") == ({"quiet": True, "signal": "TERM"}, [])
    assert understood("-qs TERM") == ({"quiet": True, "signal": "TERM"}, [])


def test_two_dashes_end_the_options():
    assert understood("a -- -q --json") == ({}, ["a", "-q", "--json"])


def test_a_single_dash_is_a_word():
    assert understood("-") == ({}, ["-"])


def test_the_last_of_several_counts_unless_they_add_up():
    assert understood("--signal=1 --signal=2") == ({"signal": "2"}, [])
    assert understood("--bind=a --bind b") == ({"bind": ["a", "b"]}, [])


def test_options_come_in_the_order_in_which_each_was_said_last():
    values, _ = understood("--signal=1 --json=short --signal=2")
    assert list(values) == ["json", "signal"]


def test_an_empty_value_is_a_value():
    assert understood("--signal=") == ({"signal": ""}, [])


def test_an_optional_value_is_only_joined():
    assert understood("--log info") == ({"log": "debug"}, ["info"])
    assert understood("--log=info") == ({"log": "info"}, [])


def test_a_short_option_with_an_optional_value_may_join_it():
    assert understood("-l") == ({"log": "debug"}, [])


def test_an_unambiguous_beginning_is_enough():
    assert understood("--sig=TERM") == ({"signal": "TERM"}, [])


def test_a_commands_own_options_are_left_to_it():
    assert understood("-q NAME ls -l --json", 1) == (
        {"quiet": True},
        ["NAME", "ls", "-l", "--json"],
    )
    assert understood("NAME -q ls -v", 1) == ({"quiet": True}, ["NAME", "ls", "-v"])
    assert understood("NAME -- ls -q", 1) == ({}, ["NAME", "ls", "-q"])


def test_a_commands_own_two_dashes_reach_it():
    assert understood("NAME git log -- file", 1) == ({}, ["NAME", "git", "log", "--", "file"])
    assert understood("NAME -- cat -- file", 1) == ({}, ["NAME", "cat", "--", "file"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--quite", r"Unknown option --quite, did you mean --quiet\?"),
        ("--zzz", r"Unknown option --zzz$"),
        ("-z", "Unknown option -z"),
        ("-qz", "Unknown option -z"),
        ("--signal", "--signal needs a value: --signal=SIGNAL"),
        ("-s", "--signal needs a value"),
        ("--quiet=yes", "--quiet takes no value"),
        ("--json=loud", "--json=loud: must be one of pretty, short"),
    ],
)
def test_what_is_wrong_is_told(line, message):
    with pytest.raises(UsageError, match=message):
        parse(OPTIONS, line.split())


@pytest.mark.parametrize("text", ["-1", "ten", "1.5", "", "¹"])
def test_a_number_is_a_whole_one(text):
    arguments = parse((Option(name="--lines", value="N"),), [f"--lines={text}"])
    with pytest.raises(UsageError, match="is not a whole number"):
        arguments.number("lines", 10)


def test_a_number_has_a_default():
    option = (Option(name="--lines", value="N"),)
    assert parse(option, []).number("lines", 10) == 10
    assert parse(option, ["--lines=5"]).number("lines", 10) == 5


@pytest.mark.parametrize(("words", "command"), [(["web", ""], -1), (["", "true"], 1)])
def test_an_empty_word_of_ours_is_no_argument(words, command):
    with pytest.raises(UsageError, match="empty"):
        parse(OPTIONS, words, command=command)


@pytest.mark.parametrize(
    ("words", "command"), [(["web", "echo", ""], 1), (["", "a"], 0), (["-D.", "echo", "", "a"], 0)]
)
def test_an_empty_word_of_a_command_is_the_command_s(words, command):
    assert parse(OPTIONS, words, command=command).words[-2:] == words[-2:]
