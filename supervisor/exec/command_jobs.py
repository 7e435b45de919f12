"""The jobs of `longhaul exec`: from the options to a `Job` for each combination of values."""

from __future__ import annotations

import argparse
import functools
import os
import shutil
import sys
from collections.abc import Iterator
from typing import Any

import msgspec

from supervisor.core.terms.jobs import Job, derived_id
from supervisor.core.terms.wording import cut, one_line
from supervisor.exec.command_options import unpacked
from supervisor.exec.job_sources import STDIN, JobList, Params, SourceRow
from supervisor.options.script_options import OwnOptionError
from supervisor.views.console import print_lines
from supervisor.views.suggested_commands import shown
from workers.program.command_template import (
    LINE,
    NUMBER,
    OF_PATH,
    BadTemplate,
    Template,
    as_param,
    names_in,
    texts_of,
)
from workers.program.program_job import ProgramSpec, enter, run_program
from workers.values.json_encoding import encode_params
from workers.values.tracebacks import encodable

_LONGEST_ID = 100
_OF_SHELLS = frozenset("|<>;&$*")


class CommandJobs:
    """Makes the jobs, and with them the specification of their programs. Called with the script's options, as
    `jobs` of `main`."""

    def __init__(self, unset: list[str], *, is_new: bool) -> None:
        self._unset = unset
        self.is_new = is_new  # no resume
        # Empty until the options are known, remembered ones included: function and setup refer to it.
        self._spec: dict[str, Any] = {}
        self.function = functools.partial(run_program, self._spec)
        self.setup = functools.partial(enter, self._spec)

    def __call__(self, options: argparse.Namespace) -> Iterator[Job]:
        """Raises UsageError for whatever cannot be run."""
        source = _Source(options)
        self._spec.update(msgspec.to_builtins(source.spec(self._unset)))
        yield from source.jobs()
        if self.is_new and (notice := source.notice()):
            print_lines(sys.stderr, notice)


class _Source:
    def __init__(self, options: argparse.Namespace) -> None:
        if not options.command:
            raise OwnOptionError(
                "there is no command to run; it stands after --: longhaul exec [options] -- COMMAND"
            )
        self._options = options
        self._directory: str = options.directory
        if not os.path.isdir(self._directory):
            raise OwnOptionError(
                f"the directory {shown(self._directory)} of the first start is not there; the command would run in it"
            )
        self._words = [_template(word, "the command") for word in options.command]
        self._id = _template(options.id, "--id") if options.id is not None else None
        self._domain = _template(options.domain, "--domain") if options.domain is not None else None
        self._params = Params(options.param)
        self._list = _list_of(options)
        self._names = names_in([*self._words, *filter(None, (self._id, self._domain))])
        self._numbered = NUMBER in self._names
        self._check_names_of_params()
        self._check_program()

    def spec(self, unset: list[str]) -> ProgramSpec:
        options = self._options
        return ProgramSpec.packed(
            command=options.command,
            directory=self._directory,
            of_lines=self._of_lines,
            result=options.result,
            on_drain=options.on_drain,
            retry_codes=codes_of(options.retry_codes),
            unset=unset,
        )

    def jobs(self) -> Iterator[Job]:
        first: dict[str, int] = {}
        for number, (row, values) in enumerate(self._values(), 1):
            job = self._job(row, values, number)
            place = row.number if self._list is not None else number
            job_id = str(job.id)
            if job_id in first:
                raise OwnOptionError(self._told_twice(job_id, first[job_id], place))
            first[job_id] = place
            yield job

    def notice(self) -> str:
        """A warning about what is probably meant otherwise; "" if there is none."""
        if names_in(self._words) or not (self._list is not None or self._params.values):
            return ""
        example = LINE if self._of_lines else next(iter(self._params.values), "name")
        return (
            f"warning: no {{name}} stands in the command, so it is the same for all jobs; {{{example}}} puts a value "
            f"there (programs find theirs in LONGHAUL_PARAM_{example}, too)"
        )

    @property
    def _of_lines(self) -> bool:
        return self._list is not None and self._list.of_lines

    def _values(self) -> Iterator[tuple[SourceRow, dict[str, str]]]:
        rows = self._list.rows() if self._list is not None else iter([SourceRow(1, {})])
        for row in rows:
            if self._list is not None and (both := row.values.keys() & self._params.values.keys()):
                name = min(both)
                raise OwnOptionError(f"--param {name}: {self._list.name} has values of that name, too")
            for values in self._params.combinations():
                yield row, {**row.values, **values}

    def _job(self, row: SourceRow, values: dict[str, str], number: int) -> Job:
        params: dict[str, Any] = {name: as_param(text) for name, text in values.items()}
        if self._numbered:
            params[NUMBER] = str(number)
        texts = texts_of(params, of_lines=self._of_lines)
        if missing := [name for name in self._names if name not in texts]:
            raise OwnOptionError(self._without_value(missing[0], row, texts))
        if number == 1:
            self._check_no_shell_line(texts)
        if zero := next((name for name, text in texts.items() if "\0" in text), None):
            raise OwnOptionError(
                f"{self._place(row)}: {{{zero}}} has a zero byte, which no program can be given"
            )
        job_id = encodable(self._id.filled(texts)) if self._id is not None else self._derived(params, values)
        domain = encodable(self._domain.filled(texts)) if self._domain is not None else None
        if not job_id or domain == "":
            raise OwnOptionError(
                f"{self._place(row)}: {'--domain' if job_id else '--id'} gives an empty text"
            )
        return Job(id=job_id, domain=domain, params=params)

    def _derived(self, params: dict[str, Any], values: dict[str, str]) -> str:
        """Without `--id`: a line itself, or names and values."""
        named = {name: encodable(text) for name, text in values.items()}
        if list(named) == [LINE] and len(named[LINE]) <= _LONGEST_ID:
            return named[LINE]
        return derived_id(None, encode_params(named))

    # -------------------------------------------------------------------- what is wrong

    def _check_names_of_params(self) -> None:
        """Without a list all names are known before the first job."""
        if self._list is not None:
            return
        known = {*self._params.values, NUMBER}
        if missing := [name for name in self._names if name not in known]:
            raise OwnOptionError(
                self._without_value(missing[0], None, dict.fromkeys(self._params.values, ""))
            )

    def _without_value(self, name: str, row: SourceRow | None, texts: dict[str, str]) -> str:
        known = ", ".join(f"{{{each}}}" for each in texts if each != NUMBER)
        where = f"{self._place(row)}: " if row is not None and row.number > 1 else ""
        said = f"{where}{{{cut(one_line(name), 60)}}} has no value"
        if (
            not name
            or not all(letter.isalnum() or letter in "_-. " for letter in name)
            or name.strip() != name
        ):
            meant = " ({line} is the line)" if not name else ""
            return f"{said}{meant}; for braces in the command write {{{{ and }}}}; there is {known or 'no value'}"
        if name in (LINE, *OF_PATH) and not self._of_lines:
            return f"{said}: only the lines of a plain list (--jobs) have it; there is {known or 'no value'}"
        if self._of_lines and self._list is not None:
            known += f". {self._list.name} is a list of lines: a .csv, .tsv or .jsonl file has names"
        elif ";" in known and "," not in known:
            known += ". In a .csv file commas stand between the names"
        return (
            f"{said}; there is {known}" if known else f"{said}: give it by --param {name}=... or --jobs FILE"
        )

    def _place(self, row: SourceRow) -> str:
        return f"line {row.number} of {self._list.name}" if self._list is not None else "the first job"

    def _told_twice(self, job_id: str, before: int, now: int) -> str:
        if self._list is None:
            where = f"combinations {before} and {now} of --param"
        elif before == now:
            where = f"two combinations with line {now} of {self._list.name}"
        else:
            where = f"lines {before} and {now} of {self._list.name}"
        more = "" if self._id is not None else "; --id '{#}' tells them apart by their number"
        return f"two jobs have the id {cut(one_line(job_id), 100)!r}: {where}{more}"

    def _check_program(self) -> None:
        """The program, if its name is the same for all jobs."""
        first = self._words[0]
        if first.names:
            return
        program = first.filled({})
        if os.sep in program:
            path = os.path.join(self._directory, program)
            if not os.path.isfile(path):
                what = "is a directory" if os.path.isdir(path) else "is not there"
                hint = "" if os.path.isdir(path) else _of_shells(program)
                raise OwnOptionError(
                    f"the program {shown(program)} {what} (in {shown(self._directory)}){hint}"
                )
            if not os.access(path, os.X_OK):
                raise OwnOptionError(
                    f"the program {shown(program)} may not be executed: chmod +x {shown(program)}"
                )
        elif shutil.which(program) is None:
            here = os.path.isfile(os.path.join(self._directory, program)) and program
            hint = f"; the file here is ./{shown(program)}" if here else ""
            raise OwnOptionError(f"there is no program {shown(program)!r} on PATH{hint}{_of_shells(program)}")

    def _check_no_shell_line(self, texts: dict[str, str]) -> None:
        """A whole line for a shell in place of a program, as other tools take it: no job could start."""
        program = self._words[0].filled(texts)
        if self._words[1:] or os.path.exists(os.path.join(self._directory, program)):
            return
        if not _is_line(program) or (os.sep not in program and shutil.which(program) is not None):
            return
        if _OF_SHELLS & set(program):
            name = next(iter(self._names), LINE)
            hint = f"and no shell here that would take it apart: -- sh -c '... \"$1\" ...' sh {{{name}}} runs one"
        else:
            hint = f"write the command without quotes around it: -- {cut(one_line(self._options.command[0]), 60)}"
        raise OwnOptionError(f"there is no program {cut(one_line(program), 60)!r}, {hint}")


def _of_shells(word: str) -> str:
    """A hint for a line that only a shell understands."""
    return "; there is no shell here: -- sh -c '...' runs one" if _is_line(word) else ""


def _is_line(word: str) -> bool:
    """Whether a word that names no program is probably a whole command. A path may have blanks, too."""
    first, *more = word.split() or [word]
    return bool(_OF_SHELLS & set(word) or (more and shutil.which(first) is not None))


def _template(word: str, where: str) -> Template:
    try:
        return Template(word)
    except BadTemplate as error:
        raise OwnOptionError(f"{where}: {cut(one_line(str(error)), 300)}") from None


def _list_of(options: argparse.Namespace) -> JobList | None:
    if options.jobs is None:
        return None
    if options.jobs == STDIN:
        return JobList("standard input", unpacked(options.stdin_list), "lines")
    return JobList.of_file(options.jobs)


def codes_of(text: str | None) -> list[int] | None:
    """The exit codes of `--retry-codes`. Raises UsageError."""
    if text is None or text == "none":
        return None
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() and 1 <= int(word) <= 255 for word in words):
        raise OwnOptionError(
            f"--retry-codes {cut(one_line(text), 60)}: expected exit codes from 1 to 255, such as 75,111"
        )
    return sorted(set(map(int, words)))
