"""Makes `if __name__ == "__main__":` false in a script that is executed as `__main__`.

What a script defines must belong to `__main__` in a worker, too: only then is it pickled, found and named as in
the script. So a worker executes the script with `__name__` being "__main__", and guards read "__mp_main__"
instead. They are changed in the syntax tree before compilation: nothing is slower, and line numbers stay.

These are guards; everything else is left unchanged:

- `__name__` in a comparison, or what is made of it there: `__name__ == "__main__"`,
  `__name__.split(".")[-1] in NAMES`, `match __name__:`;
- `__name__` in a condition: `if __name__.startswith("__main"):`, `if run_directly(__name__):`;
- `__name__` in one expression with the text "__main__": `{"__main__": main}.get(__name__)`;
- all this with a variable that only ever holds `__name__`.

A guard in a function reads "__mp_main__" while the script is imported, and `__name__` in a job: a job that
calls the function gets the same result as the script.

A script that refuses to be imported is imported all the same: `assert __name__ == "__main__"` and
`if __name__ != "__main__": raise ImportError` read `__name__`, and a guard's `else: raise ...` is removed.
"""

from __future__ import annotations

import ast
from bisect import bisect_left
from collections.abc import Iterator
from types import CodeType
from typing import Any

GUARD_VALUE = "__mp_main__"  # what a guard reads, as in a child of multiprocessing
IMPORTED_AS = "__longhaul_imported_as__"  # a global of the script, while it is imported
_NAME, _MAIN = "__name__", "__main__"
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_SCOPES = (*_FUNCTIONS, ast.ClassDef)


def compile_without_guards(source: bytes | str, path: str) -> tuple[CodeType, bool]:
    """Code of a script with its guards made false, and whether it has one at the top level.

    Raises SyntaxError, ValueError; RecursionError or MemoryError for a script whose tree is too
    deep or too large, though Python itself can compile it.
    """
    raw = source.encode() if isinstance(source, str) else source
    lines = [number for number, line in enumerate(raw.splitlines(), 1) if _NAME.encode() in line]
    if not lines:
        return compile(source, path, "exec", dont_inherit=True), False
    # Each step reports its own SyntaxWarnings; none reports them twice.
    tree: ast.AST = compile(source, path, "exec", flags=ast.PyCF_ONLY_AST, dont_inherit=True)
    reading = _GuardFinder(lines)
    reading.visit(tree, _Scope(None))
    if reading.aliases:
        reading = _GuardFinder(None)
        reading.visit(tree, _Scope(None))
    guarded = reading.disable_guards()
    code: CodeType = compile(tree, path, "exec", dont_inherit=True)  # type: ignore[call-overload]
    return code, guarded


class _Scope:
    """A function or a class; the outermost one is the script itself."""

    def __init__(self, parent: _Scope | None, node: ast.AST | None = None) -> None:
        self.parent = parent
        self.function: bool = isinstance(node, _FUNCTIONS) or (parent is not None and parent.function)
        self.binds = False  # whether it has a `__name__` of its own

    def is_script(self) -> bool:
        """Whether `__name__` is that of the script here."""
        scope = self
        while scope.parent is not None:
            if scope.binds:
                return False
            scope = scope.parent
        return True


class _Place:
    """Where a name is read."""

    def __init__(self, parent: ast.AST, field: str, position: int | None, scope: _Scope) -> None:
        self.parent = parent
        self.field = field
        self.position = position
        self.scope = scope

    def put(self, node: ast.expr) -> None:
        if self.position is None:
            setattr(self.parent, self.field, node)
        else:
            getattr(self.parent, self.field)[self.position] = node


class _GuardFinder:
    """Collects the guards of a tree; `disable_guards` changes them. `lines`: visit only statements on these
    lines; None for all."""

    def __init__(self, lines: list[int] | None) -> None:
        self.aliases: set[str] = set()  # variables that hold `__name__`
        self._lines = lines
        self._stored: dict[str, int] = {}  # how often a name is assigned, anywhere
        self._read: dict[int, tuple[ast.Name, _Place]] = {}  # by id of the node
        self._guards: set[int] = set()
        self._identities: set[int] = set()  # where a constant would give a SyntaxWarning
        self._refusals: set[int] = set()  # ids of names that are read to refuse an import
        # Guards with an `else` that does, and the ids of what stands in their conditions.
        self._refusing: list[tuple[ast.If, set[int]]] = []

    def visit(self, node: ast.AST, scope: _Scope) -> tuple[bool, list[ast.Name]]:
        """Whether this expression contains the text "__main__", and its reads of `__name__`."""
        if isinstance(node, _SCOPES):
            scope = _Scope(scope, node)
        elif isinstance(node, ast.Constant):
            return node.value == _MAIN, []
        elif isinstance(node, ast.arg) and node.arg == _NAME:
            scope.binds = True
        self._note_alias(node)
        self._note_refusal(node)
        text, names = False, []
        for field in node._fields:
            value = getattr(node, field, None)
            numbered = enumerate(value) if isinstance(value, list) else ((None, value),)
            for position, child in numbered:
                if isinstance(child, ast.Name):
                    if self._note_name(child, _Place(node, field, position, scope)):
                        names.append(child)
                elif isinstance(child, ast.AST) and self._mentions_name(child):
                    has_text, more = self.visit(child, scope)
                    text |= has_text
                    names += more
        guards = {id(part) for part in _conditions(node)}
        self._guards |= guards
        if isinstance(node, ast.Compare) and any(isinstance(o, (ast.Is, ast.IsNot)) for o in node.ops):
            self._identities |= guards
        if isinstance(node, ast.stmt):
            return False, []
        if text and names and isinstance(node, ast.expr):
            self._guards.update(map(id, names))
            return False, []
        return text, names

    def _mentions_name(self, node: ast.AST) -> bool:
        if self._lines is None or not isinstance(node, ast.stmt):
            return True
        first = min([node.lineno, *(made.lineno for made in getattr(node, "decorator_list", ()))])
        after = bisect_left(self._lines, first)
        return after < len(self._lines) and self._lines[after] <= (node.end_lineno or first)

    def _note_alias(self, node: ast.AST) -> None:
        """`name = __name__` in the script's own block."""
        value = getattr(node, "value", None)
        if isinstance(value, ast.Name) and value.id == _NAME:
            targets: list[Any] = []
            if isinstance(node, ast.Assign):
                targets = node.targets
            elif isinstance(node, (ast.AnnAssign, ast.NamedExpr)):
                targets = [node.target]
            self.aliases.update(target.id for target in targets if isinstance(target, ast.Name))

    def _note_refusal(self, node: ast.AST) -> None:
        if isinstance(node, ast.Assert) or (
            isinstance(node, ast.If)
            and not node.orelse
            and _always_exits(node.body)
            and _is_true_of_an_import(node.test)
        ):
            self._refusals.update(id(part) for part in ast.walk(node.test))
        elif isinstance(node, ast.If) and _always_exits(node.orelse):
            self._refusing.append((node, {id(part) for part in ast.walk(node.test)}))

    def _note_name(self, name: ast.Name, place: _Place) -> bool:
        """Whether this is a read of `__name__` or of an alias."""
        if not isinstance(name.ctx, ast.Load):
            self._stored[name.id] = self._stored.get(name.id, 0) + 1
            place.scope.binds |= name.id == _NAME
            return False
        if name.id != _NAME and name.id not in self.aliases:
            return False
        self._read[id(name)] = name, place
        return True

    def disable_guards(self) -> bool:
        """Let all guards read "__mp_main__"; true if one is at the top level of the script."""
        guarded = False
        disable_guards = set()
        for key in (self._guards & self._read.keys()) - self._refusals:
            name, place = self._read[key]
            if place.scope.is_script() and (name.id == _NAME or self._stored.get(name.id) == 1):
                place.put(_replacement(name, dynamic=place.scope.function or key in self._identities))
                guarded |= place.scope.parent is None
                disable_guards.add(key)
        for node, condition in self._refusing:
            if not disable_guards.isdisjoint(condition):
                node.orelse = []
        return guarded


def _always_exits(block: list[ast.stmt]) -> bool:
    """Whether this block ends with an exception or ends the process."""
    if not block or isinstance(block[-1], ast.Raise):
        return bool(block)
    call = getattr(block[-1], "value", None)
    called = call.func if isinstance(block[-1], ast.Expr) and isinstance(call, ast.Call) else None
    name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", None)
    return name in ("exit", "quit", "_exit", "abort")


def _is_true_of_an_import(test: ast.expr) -> bool:
    """`__name__ != "__main__"`, or the like."""
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
        return any(map(_is_true_of_an_import, test.values))
    negated = isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)
    if isinstance(test, ast.UnaryOp):
        test = test.operand
    wanted = (ast.Eq, ast.Is, ast.In) if negated else (ast.NotEq, ast.IsNot, ast.NotIn)
    return isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], wanted)


def _conditions(node: ast.AST) -> Iterator[ast.expr]:
    """The expressions that decide a comparison or a condition."""
    if isinstance(node, ast.Compare):
        for operand in (node.left, *node.comparators):
            yield from _subexpressions(operand)
    elif isinstance(node, ast.Match):
        yield from _subexpressions(node.subject)
    elif isinstance(node, (ast.If, ast.While, ast.IfExp)):
        yield from _condition_parts(node.test)
    elif isinstance(node, ast.comprehension):
        for test in node.ifs:
            yield from _condition_parts(test)
    elif isinstance(node, ast.BoolOp):
        for value in node.values[:-1]:
            yield from _condition_parts(value)


def _condition_parts(test: ast.expr) -> Iterator[ast.expr]:
    if isinstance(test, ast.Call):
        for argument in (*test.args, *(keyword.value for keyword in test.keywords)):
            if isinstance(argument, ast.Name):
                yield argument
    yield from _subexpressions(test)


def _subexpressions(node: ast.expr) -> Iterator[ast.expr]:
    """The expressions that a value is made of: `__name__` in `__name__.lower()[2:]`."""
    parts: list[ast.expr] = []
    if isinstance(node, ast.Name):
        yield node
    elif isinstance(node, ast.Call):
        if isinstance(node.func, ast.Name):  # str(__name__)
            parts = [argument for argument in node.args if isinstance(argument, ast.Name)]
        else:
            parts = [node.func]
    elif isinstance(node, (ast.Attribute, ast.Subscript, ast.FormattedValue, ast.NamedExpr)):
        parts = [node.value]
    elif isinstance(node, (ast.Tuple, ast.List, ast.Set)):
        parts = node.elts
    elif isinstance(node, (ast.JoinedStr, ast.BoolOp)):
        parts = node.values
    elif isinstance(node, ast.BinOp):
        parts = [node.left, node.right]
    elif isinstance(node, ast.UnaryOp):
        parts = [node.operand]
    for part in parts:
        yield from _subexpressions(part)


def _replacement(name: ast.Name, *, dynamic: bool) -> ast.expr:
    if not dynamic:
        return ast.copy_location(ast.Constant(GUARD_VALUE), name)
    # Only builtins and `globals()`: a function that a job pickles by value works in any process.
    call = ast.Call(
        ast.Attribute(ast.Call(ast.Name("globals", ast.Load()), [], []), "get", ast.Load()),
        [ast.Constant(IMPORTED_AS)],
        [],
    )
    value = ast.BoolOp(ast.Or(), [call, ast.Name(name.id, ast.Load())])
    for node in ast.walk(value):
        ast.copy_location(node, name)
    return value
