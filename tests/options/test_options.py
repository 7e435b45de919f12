"""What a script's command line and the keywords of run() mean, and what they refuse."""

from __future__ import annotations

import argparse
import enum
import os
import re
import signal
import subprocess
import sys
import types
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import pytest

from supervisor import api
from supervisor.core.terms.errors import CannotCreate, RunInterrupted, UnguardedMain, UsageError
from supervisor.core.terms.settings import Settings, option_of
from supervisor.options.option_parser import build_parser, names_taken, our_options
from supervisor.options.request import Request, request_of_main, request_of_run
from supervisor.options.script_options import default_forms, namespace, restore_options
from supervisor.session.outcome import RunOutcome
from workers.job.current_job import PROCESS


def job(**params: object) -> None:
    """Stands for the user's function."""


def main_request(
    line: str = "", *, parser: argparse.ArgumentParser | None = None, **keywords: Any
) -> Request:
    return request_of_main(
        job,
        [],
        name="pilot",
        output=keywords.pop("output", None),
        parser=parser,
        argv=line.split(),
        setup=None,
        finish=None,
        keywords=keywords,
    )


def run_request(**keywords: Any) -> Request:
    output = keywords.pop("output", None)
    return request_of_run(job, [], name="pilot", output=output, setup=None, finish=None, keywords=keywords)


def refusal(line: str, **more: Any) -> str:
    with pytest.raises(UsageError) as caught:
        main_request(line, **more)
    return str(caught.value)


# -------------------------------------------------------------------------- our options


def test_the_options_of_the_guide() -> None:
    assert main_request("--resume latest").resume == "latest"
    assert main_request("--resume experiment_20251014_210000").resume == "experiment_20251014_210000"
    assert not main_request("--no-resume").recording
    assert main_request("--experiment-id mine").experiment_id == "mine"
    assert main_request("--workers 4").settings_now == {"workers": 4}
    assert main_request("--all-tasks").settings_now == {"all_tasks": True}
    assert main_request("--list-checkpoints").list_checkpoints


def test_values_are_parsed_as_settings() -> None:
    line = "--workers auto --timeout 2h --grace 1-00:00:00 --retries 2 --max-jobs-per-worker none --seed 7"
    assert main_request(line).settings_now == {
        "workers": "auto",
        "timeout": 7200.0,
        "grace": 86400.0,
        "retries": 2,
        "max_jobs_per_worker": None,
        "seed": 7,
    }


def test_only_what_was_given_now_is_told_as_given_now() -> None:
    request = main_request("", workers=3, timeout="15m")
    assert request.settings_now == {}
    assert request.settings_script == {"workers": 3, "timeout": 900.0}


def test_every_boolean_has_its_negative() -> None:
    assert main_request("--no-all-tasks").settings_now == {"all_tasks": False}
    assert main_request("--no-retry-failed").settings_now == {"retry_failed": False}
    assert main_request("-s").show_output
    assert not main_request("-s --no-show-output").show_output


def test_patterns_may_be_repeated() -> None:
    request = main_request("--resume latest --rerun a* --rerun b* --only c")
    assert (request.rerun, request.only, request.accept_code) == (["a*", "b*"], ["c"], False)
    assert main_request("--resume latest --accept-code").accept_code


def test_every_setting_has_an_option() -> None:
    options = set(our_options())
    assert {option_of(name) for name in Settings.__struct_fields__} <= options
    assert option_of("job_cpus") == "--job-cpus"
    assert "--resources" not in options


def test_retries_and_bounds_have_groups_of_their_own_in_the_help() -> None:
    text = build_parser(None, {"memory_limit": 2 << 30}, "exp.py").format_help()
    _, _, after = text.partition("\nanother attempt (remembered by a resume):\n")
    retries, _, bounds = after.partition("\nbounds (remembered by a resume):\n")
    assert re.findall(r"^  --([\w-]+)", retries, re.MULTILINE)[:2] == ["retries", "retry-timeouts"]
    assert "--deadline TIME" in bounds
    assert "(default: 2G)" in " ".join(bounds.split())


def test_the_help_shows_the_defaults_that_hold_for_this_script() -> None:
    text = " ".join(build_parser(None, {"workers": 12, "all_tasks": True}, "exp.py").format_help().split())
    assert "(default: 12)" in text
    assert "all tasks instead of 1 per domain (default: yes)" in text
    assert "how long running jobs may continue after Ctrl+C (default: 20s)" in text
    assert "==SUPPRESS==" not in text
    assert "longhaul." not in text


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--worker 4", "unknown option --worker; did you mean --workers?; --help lists all options"),
        ("--n-jobs 4", "unknown option --n-jobs; did you mean --workers?; --help lists all options"),
        ("--rerum=x", "unknown option --rerum; did you mean --rerun?; --help lists all options"),
        ("--xyzzy-plugh", "unknown option --xyzzy-plugh; --help lists all options"),
        ("stray", "unexpected argument 'stray'; --help lists all options"),
        ("-resume latest", "unknown option -resume; did you mean --resume?; --help lists all options"),
        (
            "\u2014resume latest",
            "unknown option \u2014resume; did you mean --resume?; --help lists all options",
        ),
        (
            "--resume data/outputs/x/night",
            (
                "--resume data/outputs/x/night: expected the id of an experiment, which is the name of its "
                "directory, and no path; a place other than the default one is given by --output"
            ),
        ),
        ("resume latest", "unknown option resume; did you mean --resume?; --help lists all options"),
        ("--Resume latest", "unknown option --Resume; did you mean --resume?; --help lists all options"),
        ("--workers four", "--workers four: expected a whole number, 1 to 4096, or auto"),
        ("--timeout soon", "--timeout soon: 'soon' is not a duration: write 90, 15m, 1h30m or 1-12:00:00"),
        ("--start-method magic", "--start-method magic: expected one of auto, zygote, spawn"),
        ("--resume latest --changed maybe", "--changed maybe: expected one of refuse, keep, rerun"),
        (
            "--resume",
            (
                "argument --resume: expected one argument: --resume ID: go on with an earlier experiment; "
                "latest: the latest one; auto: the latest unfinished one, or a new one"
            ),
        ),
    ],
)
def test_a_wrong_option_is_named_with_what_is_right(line: str, message: str) -> None:
    assert refusal(line) == message


def test_the_opposite_of_an_option_that_has_none_is_told_of_the_way_to_get_one() -> None:
    own = argparse.ArgumentParser(add_help=False)
    own.add_argument("--fast", action="store_true")
    own.add_argument("--lr", type=float)
    told = refusal("--resume latest --no-fast", parser=own)
    assert told.startswith("unknown option --no-fast: --fast of the script has no opposite")
    assert "BooleanOptionalAction" in told and "did you mean" not in told
    for ours in ("--no-lr", "--no-rerun", "--no-accept-code", "--no-workers"):
        assert "no opposite" not in refusal(f"--resume latest {ours}", parser=own)


@pytest.mark.parametrize(
    "line",
    [
        "--resume X --no-resume",
        "--resume X --experiment-id Y",
        "--resume latest --experiment-id Y",
        "--rerun a*",
        "--changed keep",
        "--no-resume --rerun a*",
        "--accept-code",
        "--no-resume --accept-code",
        "--list-checkpoints --resume X",
        "--list-checkpoints --no-resume",
        "--list-checkpoints --only a",
        "--debug a --rerun b --resume X",
        "--debug a --only b",
        "--experiment-id ../up",
        "--experiment-id latest",
        "--resume a/b",
    ],
)
def test_contradictions_are_refused(line: str) -> None:
    message = refusal(line)
    assert message.count("\n") == 0
    assert line.split()[0] in message or "id" in message


def test_an_empty_value_is_refused() -> None:
    for option in ("--resume", "--experiment-id", "--output", "--only", "--debug"):
        with pytest.raises(UsageError):
            request_of_main(
                job,
                [],
                name="n",
                output=None,
                parser=None,
                argv=[option, ""],
                setup=None,
                finish=None,
                keywords={},
            )


def test_auto_goes_with_an_experiment_id_and_so_does_the_same_id_twice() -> None:
    request = main_request("--resume auto --experiment-id nightly")
    assert (request.resume, request.experiment_id) == ("auto", "nightly")
    request = main_request("--resume X --experiment-id X")
    assert (request.resume, request.experiment_id) == ("X", None)


def test_the_directory_given_now_beats_the_scripts() -> None:
    assert main_request("--output now", output="script").directory == Path.cwd() / "now"
    assert main_request("", output="script").directory == Path.cwd() / "script"


def test_a_wrong_keyword_of_main_is_named_with_the_nearest() -> None:
    message = refusal("", worker=3)
    assert message.startswith("unknown keyword worker=; did you mean workers=?; there are ")


@pytest.mark.parametrize("name", ["", "a/b", "..", 3, None])
def test_a_name_that_is_no_folder_is_refused(name: Any) -> None:
    with pytest.raises(UsageError, match="must be the name of a folder"):
        request_of_run(job, [], name=name, output=None, setup=None, finish=None, keywords={})


def test_what_must_be_callable_is_refused_otherwise() -> None:
    with pytest.raises(UsageError, match=r"must be callable, not 'job': .* without parentheses"):
        request_of_run("job", [], name="n", output=None, setup=None, finish=None, keywords={})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="finish= must be callable"):
        request_of_run(job, [], name="n", output=None, setup=None, finish=1, keywords={})  # type: ignore[arg-type]


# ------------------------------------------------------------------------ what jobs need


def test_what_jobs_need_and_what_there_is() -> None:
    line = "--job-cpus 2 --job-memory 2G --job-gpus 0.5 --memory 8G --gpus 0,2,3"
    request = main_request(f"{line} --resource license=2 --resource api=0.5")
    assert request.settings_now == {
        "job_cpus": 2,
        "job_memory": 2 << 30,
        "job_gpus": 0.5,
        "memory": 8 << 30,
        "gpus": "0,2,3",
        "resources": {"license": 2, "api": 0.5},
    }
    keywords = dict(request.settings_now)
    assert run_request(**keywords).settings_now == keywords
    assert main_request(**keywords).settings_script == keywords
    again = "--job-cpus none --job-memory none --job-gpus none --memory auto --gpus auto --resource none"
    assert main_request(again).settings(keywords) == Settings()


def test_resources_given_now_replace_those_that_are_remembered() -> None:
    remembered = {"resources": {"license": 2, "api": 4}}
    request = main_request("--resource license=3", resources={"disk": 1})
    assert request.settings(remembered).resources == {"license": 3}
    assert main_request(resources={"disk": 1}).settings(remembered).resources == remembered["resources"]
    assert main_request(resources={"disk": 1}).settings().resources == {"disk": 1}


@pytest.mark.parametrize("gpus", [2, "2", "0", "none", "auto", "0,2,3", "3,", "GPU-8932f937,MIG-GPU-1/0/0"])
def test_devices_are_a_number_or_names(gpus: int | str) -> None:
    assert run_request(gpus=gpus).settings_now == {"gpus": str(gpus)}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--job-cpus -1", "--job-cpus -1: expected a number of 0.001 or more"),
        ("--job-cpus 0", "--job-cpus 0: expected a number of 0.001 or more"),
        ("--job-cpus many", "--job-cpus many: expected a number"),
        ("--job-cpus nan", "--job-cpus nan: expected a number"),
        ("--job-cpus 1e9", "--job-cpus 1e9: expected at most 1,000,000"),
        ("--job-memory 5", "--job-memory 5: expected a size of at least 1M"),
        ("--job-memory big", "--job-memory big: 'big' is not a size: write 1000000, 400M or 2G"),
        (
            "--job-gpus 1.5",
            "--job-gpus 1.5: expected a whole number of GPUs, or less than 1 for a share of one",
        ),
        (
            "--job-gpus -1",
            "--job-gpus -1: expected a whole number of GPUs, or less than 1 for a share of one",
        ),
        ("--memory none", "--memory none: 'none' is not a size: write 1000000, 400M or 2G, or auto"),
        ("--gpus -1", "--gpus -1: expected auto, none, a number of devices, or their names: 0,2,3"),
        ("--gpus 0,,1", "--gpus 0,,1: expected auto, none, a number of devices, or their names: 0,2,3"),
        ("--gpus none,1", "--gpus none,1: expected auto, none, a number of devices, or their names: 0,2,3"),
        ("--gpus all", "--gpus all: expected auto, none, a number of devices, or their names: 0,2,3"),
        ("--gpus 1,1", "--gpus 1,1: expected each device once"),
        ("--gpus 2000", "--gpus 2000: expected at most 1024 devices"),
        ("--gpus 1.5", "--gpus 1.5: expected auto, none, a number of devices, or their names: 0,2,3"),
        ("--gpus 0-2", "--gpus 0-2: expected auto, none, a number of devices, or their names: 0,2,3"),
        ("--gpus 1,01", "--gpus 1,01: expected auto, none, a number of devices, or their names: 0,2,3"),
        ("--memory 9999999T", "--memory 9999999T: expected a size of at most 4,194,304T, or auto"),
        ("--resource license", "--resource license: expected NAME=N, such as license=2"),
        ("--resource license=0", "--resource license=0: expected a number of 0.001 or more"),
        ("--resource =2", "--resource =2: '' is not a name: letters, digits, _, - and ., a letter first"),
        (
            "--resource memory=2",
            (
                "--resource memory=2: 'memory' is no resource of your own: a job asks by memory=, "
                "and --memory says what there is"
            ),
        ),
        ("--resource a=1 --resource a=2", "--resource a=2: a is given twice"),
        ("--resources a=1", "unknown option --resources; did you mean --resource?; --help lists all options"),
    ],
)
def test_a_wrong_need_is_named_with_what_is_right(line: str, message: str) -> None:
    assert refusal(line) == message


class Unwilling:
    def __float__(self) -> float:
        raise RuntimeError("it is on another device")

    __repr__ = __str__ = __float__  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("keywords", "told"),
    [
        ({"job_cpus": True}, "--job-cpus True: expected a number"),
        ({"job_cpus": [2]}, "--job-cpus [2]: expected a number"),
        ({"job_cpus": 10**400}, "expected at most 1,000,000"),
        ({"job_cpus": "4\n5"}, "--job-cpus 4 5: expected a number"),
        ({"job_cpus": "x" * 500}, f"--job-cpus {'x' * 79}…: expected a number"),
        ({"job_cpus": Unwilling()}, "--job-cpus a value of type Unwilling: expected a number"),
        ({"job_memory": 1 << 70}, "expected a size of at most 4,194,304T"),
        ({"resources": {"a": "1\n2"}}, "a=1 2: expected a number"),
        ({"job_memory": 2.5}, "--job-memory 2.5: expected a size: 1000000, 400M or 2G"),
        ({"memory": [2]}, "--memory [2]: expected a size: 1000000, 400M or 2G"),
        ({"memory": None}, "--memory None: expected a size: 1000000, 400M or 2G"),
        ({"gpus": None}, "--gpus None: expected auto, none, a number of devices, or their names: 0,2,3"),
        ({"gpus": [0, 1]}, '--gpus [0, 1]: expected the names in one text: "0,2,3"'),
        ({"gpus": 1.0}, "--gpus 1.0: expected auto, none"),
        ({"resources": None}, '--resource None: expected names and amounts, such as {"license": 1}'),
        ({"resources": {3: 1}}, "3 is not a name: letters, digits, _, - and ., a letter first"),
        ({"resources": {"a": "many"}}, "a=many: expected a number"),
    ],
)
def test_a_keyword_for_needs_of_another_kind_is_told_in_words(keywords: dict[str, object], told: str) -> None:
    with pytest.raises(UsageError, match=re.escape(told)):
        run_request(**keywords)


@pytest.mark.parametrize("option", ["--memory", "--gpus", "--resource", "--job-cpus"])
def test_a_script_keeps_its_own_option_of_that_name(option: str) -> None:
    given = {"--memory": "2G", "--gpus": "2", "--resource": "a=1", "--job-cpus": "3"}[option]
    request = main_request(f"{option} mine --longhaul{option[1:]} {given}", parser=script_with(option))
    assert request.options_now == {option[2:].replace("-", "_"): "mine"}
    assert request.settings_now == main_request(f"{option} {given}").settings_now != {}
    assert main_request(f"{option} mine", parser=script_with(option)).settings_now == {}


def test_shorter_options_of_the_script_are_not_taken_for_ours() -> None:
    parser = script_with("--mem", "--gpu", "--res", "--resources", "--job", "-m", "-g")
    words = "--mem 1 --gpu 2 --res 3 --resources 4 --job 5 -m6 -gpus"
    request = main_request(words, parser=parser)
    assert request.settings_now == {}
    assert request.options_now == {
        "mem": "1",
        "gpu": "2",
        "res": "3",
        "resources": "4",
        "job": "5",
        "m": "6",
        "g": "pus",
    }
    assert refusal("--memo 1", parser=parser).startswith("unknown option --memo; ")


# ---------------------------------------------------------------- the script's own options


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


def own_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False, description="Measures things.")
    parser.add_argument("data", type=Path)
    parser.add_argument("extra", nargs="?", type=int, default=5)
    parser.add_argument("--size", type=int, default=10)
    parser.add_argument("--day", type=date.fromisoformat, default=date(2025, 1, 1))
    parser.add_argument("--colour", type=Colour, default=Colour.RED)
    parser.add_argument("--member", type=lambda name: Colour[name], default=None)
    parser.add_argument("--span", type=lambda text: tuple(map(int, text.split("-"))))
    parser.add_argument("--speed", type=float)
    parser.add_argument("--path", type=Path, action="append", default=[Path("first")])
    parser.add_argument("--names", nargs="+", default=["x"])
    parser.add_argument("-v", action="count", default=0)
    parser.add_argument("--flag", action=argparse.BooleanOptionalAction, default=False)
    parser.set_defaults(hidden="kept")
    return parser


def test_given_options_are_told_apart_from_defaults() -> None:
    request = main_request("in.csv --size 10 -vv --workers 2", parser=own_parser())
    assert request.options_now == {"data": "in.csv", "size": 10, "v": 2}
    assert request.options_default["size"] == 10
    assert request.options_default["extra"] == 5
    assert request.settings_now == {"workers": 2}


def test_values_survive_being_remembered_as_json() -> None:
    line = (
        "in.csv 7 --day 2025-10-14 --colour blue --member RED --span 3-9 --speed nan "
        "--path second --path third --names a b --flag"
    )
    request = main_request(line, parser=own_parser())
    remembered = msgspec.json.decode(msgspec.json.encode({**request.options_default, **request.options_now}))
    found = vars(namespace(own_parser(), remembered))
    assert str(found.pop("speed")) == "nan"
    assert found == {
        "data": Path("in.csv"),
        "extra": 7,
        "size": 10,
        "day": date(2025, 10, 14),
        "colour": Colour.BLUE,
        "member": Colour.RED,
        "span": (3, 9),
        "path": [Path("first"), Path("second"), Path("third")],
        "names": ["a", "b"],
        "v": 0,
        "flag": True,
        "hidden": "kept",
    }


def test_the_remembered_form_is_readable() -> None:
    request = main_request("in.csv --colour blue --span 3-9 --path p", parser=own_parser())
    assert request.options_now == {"data": "in.csv", "colour": "blue", "span": "3-9", "path": ["first", "p"]}


def test_a_default_that_json_cannot_hold_stays_the_parsers() -> None:
    parser = argparse.ArgumentParser(add_help=False)
    default = object()
    parser.add_argument("--thing", default=default)
    parser.add_argument("--absent", default=argparse.SUPPRESS)
    forms = default_forms(parser)
    assert set(forms) == {"thing", "absent"}
    assert msgspec.json.encode(forms)
    assert namespace(parser, forms) == argparse.Namespace(thing=default)


def test_a_given_value_that_json_cannot_hold_is_refused_by_name() -> None:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--function", action="store_const", const=sum)
    assert "--function: the value <built-in function sum> cannot be kept in the checkpoint" in refusal(
        "--function", parser=parser
    )


def test_required_options_may_be_missing_only_where_they_are_remembered() -> None:
    parser = own_parser()
    parser.add_argument("--must", required=True)
    assert refusal("", parser=parser) == "the following arguments are required: data, --must"
    request = main_request("--resume latest", parser=parser)
    assert request.options_now == {}
    remembered = {**request.options_default, "data": "in.csv", "must": "yes"}
    assert namespace(parser, remembered).must == "yes"
    with pytest.raises(UsageError, match="required: data, --must"):
        namespace(parser, request.options_default)
    assert main_request("--list-checkpoints", parser=parser).list_checkpoints


def test_a_list_of_positionals_may_be_empty() -> None:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("files", nargs="*")
    request = main_request("", parser=parser)
    assert namespace(parser, request.options_default).files == []
    assert main_request("a b", parser=parser).options_now == {"files": ["a", "b"]}


def test_one_of_a_required_group_is_required() -> None:
    parser = argparse.ArgumentParser(add_help=False)
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--one")
    group.add_argument("--two")
    assert refusal("", parser=parser) == "the following arguments are required: one of --one --two"
    assert "not allowed with" in refusal("--one 1 --two 2", parser=parser)
    assert main_request("--two 2", parser=parser).options_now == {"two": "2"}


def test_the_users_parser_is_not_changed() -> None:
    parser = own_parser()
    before = parser.format_help()
    main_request("in.csv --size 3", parser=parser)
    namespace(parser, {"data": "d", "size": 4})
    assert parser.format_help() == before
    assert [action.required for action in parser._actions][:1] == [True]
    assert parser.parse_args(["d"]).size == 10


def test_the_users_options_and_description_are_in_the_help() -> None:
    text = build_parser(own_parser(), {}, "exp.py").format_help()
    assert "Measures things." in text
    assert "--size SIZE" in text
    assert text.startswith("usage: exp.py")


def script_with(*options: str, **more: Any) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    for option in options:
        parser.add_argument(option, **more)
    return parser


@pytest.mark.parametrize(
    "option", ["--workers", "-s", "--no-resume", "--no-all-tasks", "--version", "--output"]
)
def test_a_name_that_the_script_uses_is_the_scripts(option: str) -> None:
    request = main_request(f"{option} mine", parser=script_with(option))
    assert request.options_now == {option.lstrip("-").replace("-", "_"): "mine"}
    assert request.settings_now == {} and request.recording and request.directory.name == "pilot"


def test_ours_yield_by_their_longer_names() -> None:
    parser = script_with("--output", "--seed", "--timeout", "--no-all-tasks", "-s")
    line = "--output plots --seed x --longhaul-output out --longhaul-seed 7 --longhaul-timeout 2h -s y"
    request = main_request(f"{line} --all-tasks --longhaul-no-all-tasks --show-output", parser=parser)
    assert request.options_now == {"output": "plots", "seed": "x", "s": "y"}
    assert request.directory == Path.cwd() / "out"
    assert request.settings_now == {"seed": 7, "timeout": 7200.0, "all_tasks": False}
    assert request.show_output
    text = build_parser(parser, {}, "exp.py").format_help()
    assert "--longhaul-output DIR" in text
    assert "--output is the script's own" in " ".join(text.split())
    assert "--longhaul-workers" not in text


def test_the_longer_names_are_always_there() -> None:
    short = [
        "--resume a",
        "--only b",
        "--workers 3",
        "--all-tasks",
        "--no-retry-failed",
        "--detach",
        "--no-resume",
    ]
    for words in short:
        assert main_request(words.replace("--", "--longhaul-")) == replaced(main_request(words), words)
    assert set(our_options()) <= set(names_of(build_parser(None, {}, "")))
    assert not any("longhaul-" in option for option in our_options())


def replaced(request: Request, words: str) -> Request:
    return msgspec.structs.replace(request, arguments=words.replace("--", "--longhaul-").split())


def names_of(parser: argparse.ArgumentParser) -> list[str]:
    return [option for action in parser._actions for option in action.option_strings]


def test_a_script_with_names_like_our_longer_ones_keeps_them() -> None:
    request = main_request(
        "--output a --longhaul-output b", parser=script_with("--output", "--longhaul-output")
    )
    assert request.options_now == {"output": "a", "longhaul_output": "b"}
    assert request.directory.name == "pilot"


def test_refusals_name_our_options_as_they_are_called_here() -> None:
    parser = script_with("--seed", "--resume", "--rerun")
    assert refusal("--longhaul-seed x", parser=parser) == "--longhaul-seed x: expected a whole number"
    assert "--longhaul-rerun needs --longhaul-resume" in refusal("--longhaul-rerun x", parser=parser)
    assert names_taken(frozenset({"--seed", "-s", "--mine"})) == (
        "--seed: the script's own here; longhaul's is --longhaul-seed"
    )
    request = main_request(parser=parser)
    told = request.with_option_names("--resume ID goes on, --rerun='*' repeats, --resumes and --only stay")
    assert told == "--longhaul-resume ID goes on, --longhaul-rerun='*' repeats, --resumes and --only stay"


def test_the_same_name_without_the_same_option_is_no_clash() -> None:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--crew", dest="workers", type=int, default=1)
    request = main_request("--crew 3 --workers 2", parser=parser)
    assert request.options_now == {"workers": 3}
    assert request.settings_now == {"workers": 2}


def test_parsers_that_cannot_be_mixed_in_are_refused() -> None:
    assert "add_help=False" in refusal("", parser=argparse.ArgumentParser())
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_subparsers().add_parser("one")
    assert "subcommands" in refusal("", parser=parser)


def test_a_remembered_value_that_is_not_accepted_any_more_is_named() -> None:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--size", type=int)
    assert restore_options(parser, {"size": "3", "gone": 1}) == {"size": 3}
    with pytest.raises(UsageError, match="--size: the remembered value 'x' is not accepted any more"):
        restore_options(parser, {"size": "x"})


def test_without_a_parser_the_namespace_is_empty() -> None:
    assert namespace(None, {"size": 3}) == argparse.Namespace()


# ------------------------------------------------------------------------------- run()


def test_keywords_of_run_are_named_as_the_options() -> None:
    request = run_request(resume="latest", workers="auto", rerun="a*", only=["b", "c"], timeout="2h")
    assert (request.resume, request.rerun, request.only) == ("latest", ["a*"], ["b", "c"])
    assert request.settings_now == {"workers": "auto", "timeout": 7200.0}
    assert request.settings_script == {"all_tasks": True}
    assert not request.interactive
    assert not run_request(resume=False).recording
    assert run_request(resume=None, experiment_id=None) == run_request()
    assert not run_request(progress=False).progress


@pytest.mark.parametrize(
    ("keywords", "told"),
    [
        ({"resume": 3}, "resume= must be a string, not 3"),
        ({"experiment_id": 5}, "experiment_id= must be a string, not 5"),
        ({"output": 3}, "output= must be a string, not 3"),
        ({"only": 3}, "only= must be a pattern or a list of patterns, not 3"),
        ({"only": ["a", 3]}, "only= must be a pattern or a list of patterns, not "),
        ({"rerun": 7, "resume": "latest"}, "rerun= must be a pattern or a list of patterns, not 7"),
        ({"stall": []}, "--stall []: expected a duration, such as 90 or '15m'"),
        ({"grace": None}, "--grace None: expected a duration, such as 90 or '15m'"),
    ],
)
def test_a_keyword_of_run_with_a_value_of_another_kind_is_told_in_words(
    keywords: dict[str, object], told: str
) -> None:
    with pytest.raises(UsageError, match=re.escape(told)):
        run_request(**keywords)


def test_an_unknown_keyword_of_run_raises_with_the_nearest_name() -> None:
    with pytest.raises(UsageError, match="unknown keyword experimentid=; did you mean experiment_id="):
        run_request(experimentid="x")


@pytest.mark.parametrize("key", ["n_jobs", "max_workers", "processes", "nprocs", "num_workers"])
def test_the_workers_of_other_tools_are_ours(key: str) -> None:
    with pytest.raises(UsageError, match=rf"unknown keyword {key}=; did you mean workers=\?"):
        run_request(**{key: 2})


def test_contradictions_of_run_are_told_in_its_own_words() -> None:
    with pytest.raises(UsageError, match="rerun= needs resume="):
        run_request(rerun="a")
    with pytest.raises(UsageError, match="resume=False and rerun= do not go together"):
        run_request(rerun="a", resume=False)
    with pytest.raises(UsageError, match="say which experiment"):
        run_request(resume=True)


# ------------------------------------------------------------------------- how it ends


@pytest.fixture
def experiment(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """In the place of the experiment: does what `act` says, remembers the request."""
    stand_in = types.SimpleNamespace(act=RunOutcome, request=None)

    def execute(request: Request, prestarted: object) -> RunOutcome:
        stand_in.request = request
        outcome: RunOutcome = stand_in.act()
        return outcome

    monkeypatch.setitem(sys.modules, "supervisor.session.execution", types.SimpleNamespace(execute=execute))
    return stand_in


def exit_of(*line: str) -> int | str | None:
    with pytest.raises(SystemExit) as caught:
        api.main(job, [], name="pilot", argv=line)
    return caught.value.code


def test_main_ends_in_the_exit_code_of_the_run(experiment: types.SimpleNamespace) -> None:
    experiment.act = lambda: RunOutcome(exit_code=1)
    assert exit_of("--workers", "2") == 1
    assert experiment.request.settings_now == {"workers": 2}
    assert experiment.request.command_line == sys.orig_argv
    assert experiment.request.arguments == ["--workers", "2"]


def test_errors_are_one_line_and_an_exit_code(
    experiment: types.SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse() -> RunOutcome:
        raise CannotCreate("/data: read-only file system; give --output another directory")

    experiment.act = refuse
    assert exit_of() == 73
    assert capsys.readouterr() == (
        "",
        "error: /data: read-only file system; give --output another directory\n",
    )
    assert exit_of("--worker") == 2
    assert "did you mean --workers?" in capsys.readouterr().err


def test_help_and_version_exit_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_of("--help") == 0
    assert exit_of("--version") == 0
    assert "longhaul" in capsys.readouterr().out


def test_run_returns_the_report_or_raises_interrupted_with_it(experiment: types.SimpleNamespace) -> None:
    experiment.act = lambda: RunOutcome(exit_code=1, report="report")
    assert api.run(job, [], name="pilot") == "report"
    experiment.act = lambda: RunOutcome(signal=int(signal.SIGTERM), report="report")
    with pytest.raises(RunInterrupted) as caught:
        api.run(job, [], name="pilot")
    assert caught.value.report == "report"
    assert isinstance(caught.value, KeyboardInterrupt)


def test_inside_a_worker_both_refuse_and_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PROCESS, "inside_worker", True)
    with pytest.raises(UnguardedMain, match="called by a job"):
        api.main(job, [], name="pilot", argv=[])
    monkeypatch.setattr(PROCESS, "importing_main", True)
    with pytest.raises(RuntimeError, match='if __name__ == "__main__":'):
        api.run(job, [], name="pilot")


def test_another_platform_is_one_clear_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "platform", "wasi")
    assert exit_of() == 2
    assert capsys.readouterr().err.startswith("error: longhaul runs on Linux and macOS, not on wasi")


DYING = """
import sys, types
from supervisor import api as cli
from supervisor.session.outcome import RunOutcome
def execute(request, prestarted):
    if sys.argv[1] == "interrupt":
        raise KeyboardInterrupt
    return RunOutcome(exit_code=75, signal=int(sys.argv[1]))
sys.modules["supervisor.session.execution"] = types.SimpleNamespace(execute=execute)
print("flushed", end="")
cli.main(print, [], name="pilot", argv=[])
"""


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_main_dies_of_the_signal_that_stopped_the_run(signum: signal.Signals) -> None:
    ended = _dying(str(int(signum)))
    assert (ended.returncode, ended.stdout) == (-signum, "flushed")


def test_an_interrupt_before_the_run_is_no_traceback() -> None:
    ended = _dying("interrupt")
    assert (ended.returncode, ended.stderr) == (-signal.SIGINT, "interrupted\n")


def _dying(argument: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).resolve().parent.parent.parent
    environment = {**os.environ, "PYTHONPATH": str(root)}
    return subprocess.run(
        [sys.executable, "-c", DYING, argument], capture_output=True, text=True, check=False, env=environment
    )
