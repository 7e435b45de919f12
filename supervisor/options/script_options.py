"""The script's own options: which were given, which are defaults; remembered and restored.

Values are kept in a JSON form, because they are remembered in the checkpoint. JSON's own types stay
unchanged. Anything else (a Path, an Enum member, the result of a `type=` function) is kept as a text from
which the option's `type` makes the same value again. The user's parser is never changed.

argparse has no public way to list a parser's options, to copy them, or to see which were given. Only
`options_of`, `_exclusive_groups`, `_optional_copy` and `Parser` use private parts of it.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import inspect
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any, NoReturn

from supervisor.core.terms.errors import UsageError
from workers.process.surrogates import has_surrogates, received, sendable

_ABSENT = object()
_MAY_BE_EMPTY = (argparse.ZERO_OR_MORE, argparse.OPTIONAL, argparse.REMAINDER)
_ODD = "text that is not UTF-8"  # the key of a form that holds bytes
_NO_FORM = "not rememberable"  # the key of a form that only has the repr of the value


class OwnOptionError(UsageError):
    """About an option of the script's own."""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises UsageError instead of exiting, and knows what was given."""

    def __init__(self, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.given: dict[str, list[tuple[Any, list[str]]]] = {}
        self.yielded: frozenset[str] = frozenset()  # names of ours that the script has taken

    def error(self, message: str) -> NoReturn:
        about = message.partition(":")[0].removeprefix("argument ").split("/")
        longer = [longhauled(option) for option in about if option in self.yielded and longhauled(option)]
        more = f"; this is the script's own option, longhaul's is {longer[0]}" if longer else ""
        if not longer and message.endswith("expected one argument"):
            more = self._usage_of(about[-1])
        raise UsageError(f"{message}{more}")

    def _usage_of(self, option: str) -> str:
        """What stands behind an option, by its help; "" if there is none."""
        for action in options_of(self):
            if option in action.option_strings and action.help and isinstance(action.metavar, str):
                return f": {option} {action.metavar}: {action.help.replace('%%', '%')}"
        return ""

    # Private, and called for each option that is given, with its words; public is only the resulting
    # namespace, in which a default looks like a given value. Guarded by
    # test_given_options_are_told_apart_from_defaults.
    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        strings = [string for string in arg_strings if string != "--"]
        values = super()._get_values(action, arg_strings)
        if strings or action.option_strings:  # argparse also asks for positionals that are absent
            self.given.setdefault(action.dest, []).append((values, strings))
        return values


# ---------------------------------------------------------------- what argparse keeps to itself


def options_of(parser: argparse.ArgumentParser) -> Sequence[argparse.Action]:
    """All options and positionals, in their order."""
    # Private; `add_argument` returns each of them, but to the script. Guarded by
    # test_given_options_are_told_apart_from_defaults.
    return parser._actions


def _exclusive_groups(parser: argparse.ArgumentParser) -> list[tuple[bool, Sequence[argparse.Action]]]:
    """Whether one option of a mutually exclusive group is required, and the options of that group."""
    # Private, like the options. Guarded by test_one_of_a_required_group_is_required.
    return [(group.required, group._group_actions) for group in parser._mutually_exclusive_groups]


def _optional_copy(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """A parser with the same options, none of them required: what is missing on a resume
    is remembered. For the `parents` of another parser."""
    # `parents=` takes over these private lists, and with them whether an option is required; there is
    # no public way to change that without changing the script's parser. Guarded by
    # test_the_users_parser_is_not_changed.
    twin = copy.copy(parser)
    copies = {id(action): _optional(action) for action in parser._actions}
    twin._actions = list(copies.values())
    twin._action_groups = [_regrouped(group, copies) for group in parser._action_groups]
    twin._mutually_exclusive_groups = []
    for group in parser._mutually_exclusive_groups:
        exclusive = _regrouped(group, copies)
        exclusive.required = False
        twin._mutually_exclusive_groups.append(exclusive)
    return twin


def _optional(action: argparse.Action) -> argparse.Action:
    twin = copy.copy(action)
    twin.required = False
    return twin


def _regrouped(group: Any, copies: Mapping[int, argparse.Action]) -> Any:
    twin = copy.copy(group)
    twin._group_actions = [copies[id(action)] for action in group._group_actions]
    return twin


def check_parser(parser: argparse.ArgumentParser) -> None:
    """Raises UsageError for a parser that cannot be taken in: subcommands, or a help of its own."""
    for action in options_of(parser):
        if action.nargs == argparse.PARSER:
            raise UsageError(
                "the parser given to main() has subcommands, which cannot be mixed with an "
                "experiment's options; make one script per subcommand"
            )
        if not {"-h", "--help"}.isdisjoint(action.option_strings):
            raise UsageError("the parser given to main() must be made with ArgumentParser(add_help=False)")


# ------------------------------------------------------------------------ whose name it is


def option_strings(parser: argparse.ArgumentParser | None) -> frozenset[str]:
    """Every option that the script has of its own."""
    actions = options_of(parser) if parser is not None else ()
    return frozenset(option for action in actions for option in action.option_strings)


def longhauled(option: str) -> str:
    """The longer name of one of our options; "" for one of a single letter, which has none."""
    return f"--longhaul-{option[2:]}" if option.startswith("--") else ""


def spelled(option: str, taken: Container[str]) -> str:
    """What one of our options is called in a script that uses the names `taken` for itself."""
    return longhauled(option) if option in taken else option


# ------------------------------------------------------------------------- who gets them


def takes(call: Callable[..., Any], number: int) -> bool:
    """Whether a function of the user's asks for so many arguments; those with a default do not count."""
    try:
        parameters = inspect.signature(call).parameters.values()
    except (TypeError, ValueError):
        return False
    asked = [
        parameter
        for parameter in parameters
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    return len(asked) >= number


# ------------------------------------------------------------------------ JSON forms


def default_forms(parser: argparse.ArgumentParser) -> dict[str, Any]:
    """The values that all options have when nothing is given, in their JSON form."""
    values = vars(optional_parser(parser).parse_args([]))
    forms = {action.dest: _form(action, values.get(action.dest, _ABSENT)) for action in _with_values(parser)}
    return {dest: _written(form) for dest, form in forms.items()}


def given_forms(
    parser: argparse.ArgumentParser, given: Mapping[str, list[tuple[Any, list[str]]]], namespace: object
) -> dict[str, Any]:
    """The options that were given now, in their JSON form; UsageError if one has none."""
    forms = {}
    for action in _with_values(parser):
        if action.dest not in given or action.dest in forms:
            continue
        value = getattr(namespace, action.dest)
        form = _form(action, value)
        if _is_formless(form):
            last, strings = given[action.dest][-1]
            if value is not last or not strings:
                raise UsageError(
                    f"{_name(action)}: the value {value!r} cannot be kept in the checkpoint; "
                    "let its type= give texts, numbers or paths, and convert them in the script"
                )
            form = strings[0] if action.nargs in (None, argparse.OPTIONAL) else strings
        forms[action.dest] = _written(form)
    return forms


def restore_options(parser: argparse.ArgumentParser, forms: Mapping[str, Any]) -> dict[str, Any]:
    """The values of JSON forms; what the parser does not know (any more) is left out.

    Raises UsageError for a remembered value that the option does not accept any more.
    """
    values = {}
    for action in _with_values(parser):
        form = forms.get(action.dest, _ABSENT)
        if form is _ABSENT or _is_formless(form):
            continue
        try:
            values[action.dest] = _value(action, _read(form))
        except (TypeError, ValueError, argparse.ArgumentTypeError) as error:
            raise OwnOptionError(
                f"{_name(action)}: the remembered value {form!r} is not accepted any more ({error}); "
                f"give {_name(action)} anew"
            ) from None
    return values


def namespace(parser: argparse.ArgumentParser | None, forms: Mapping[str, Any]) -> argparse.Namespace:
    """What `jobs(args)` gets: the parser's defaults, over them the values of `forms`.

    Raises UsageError if an option that the script requires has no value.
    """
    if parser is None:
        return argparse.Namespace()
    values = optional_parser(parser).parse_args([])
    vars(values).update(restore_options(parser, forms))
    check_required(
        parser, {dest for dest, form in forms.items() if form is not None and not _is_formless(form)}
    )
    return values


def check_required(parser: argparse.ArgumentParser, given: Iterable[str]) -> None:
    """Raises UsageError naming the required options that are neither given nor remembered."""
    known = set(given)
    missing = [
        _name(action)
        for action in options_of(parser)
        # argparse calls a positional with nargs="*" required, and is content without it.
        if action.required and action.nargs not in _MAY_BE_EMPTY and action.dest not in known
    ]
    for required, actions in _exclusive_groups(parser):
        if required and not any(action.dest in known for action in actions):
            missing.append("one of " + " ".join(map(_name, actions)))
    if missing:
        raise OwnOptionError(f"the following arguments are required: {', '.join(missing)}")


def optional_parser(parser: argparse.ArgumentParser) -> Parser:
    """Only the script's options, none required."""
    return Parser(add_help=False, **take_in(parser))


def take_in(parser: argparse.ArgumentParser) -> dict[str, Any]:
    """Keywords that make another parser understand what `parser` understands."""
    return {
        "parents": [_optional_copy(parser)],
        "prefix_chars": "-" + parser.prefix_chars.replace("-", ""),
        "fromfile_prefix_chars": parser.fromfile_prefix_chars,
        "allow_abbrev": False,
    }


def _with_values(parser: argparse.ArgumentParser) -> Sequence[argparse.Action]:
    """Options that have a value: not `--version` and the like."""
    return [action for action in options_of(parser) if action.dest != argparse.SUPPRESS]


def _name(action: argparse.Action) -> str:
    return "/".join(action.option_strings) or str(action.metavar or action.dest)


def _is_formless(form: Any) -> bool:
    return isinstance(form, dict) and _NO_FORM in form


def _written(form: Any) -> Any:
    """A form with texts that any file of JSON can hold: a path need not be UTF-8."""
    if isinstance(form, list):
        return [_written(item) for item in form]
    return {_ODD: sendable(form)} if isinstance(form, str) and has_surrogates(form) else form


def _read(form: Any) -> Any:
    """What was `_written`."""
    if isinstance(form, list):
        return [_read(item) for item in form]
    return received(form[_ODD]) if isinstance(form, dict) and form.keys() == {_ODD} else form


def _form(action: argparse.Action, value: Any) -> Any:
    """The first form from which the option makes the same value again."""
    import json

    for candidate in (value, *_texts(value)):
        with contextlib.suppress(Exception):  # whatever the user's type= or == may raise
            form = json.loads(json.dumps(candidate, allow_nan=False))
            if _same(form, candidate) and _same(_value(action, form), value):
                return form
    return {_NO_FORM: repr(value)[:200]}


def _texts(value: Any) -> list[Any]:
    """Texts that may stand for a value: of a list, of each of its items."""
    if isinstance(value, (list, tuple)):
        items = [_texts(item) for item in value]
        return [list(texts) for texts in zip(*items, strict=True)]
    return [str(getattr(value, "value", value)), str(getattr(value, "name", value)), str(value)]


def _value(action: argparse.Action, form: Any) -> Any:
    """Texts go through the option's `type`, also those in lists; all else is itself."""
    convert = action.type
    if convert is None or not callable(convert):
        return form
    if isinstance(form, list):
        return [_value(action, item) for item in form]
    return convert(form) if isinstance(form, str) else form


def _same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)
