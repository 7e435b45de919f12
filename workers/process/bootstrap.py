# The script that each fresh interpreter is started with: `python bootstrap.py ENTRY ROOT NUMBER...`
"""Sets up `sys.path` for our own modules, then calls ENTRY ("workers.zygote:run").

Nothing may be imported by name before that: entries in front of the standard library are the script's (its
folder, PYTHONPATH) or accidental (this folder, the current directory), and may shadow modules that we need. So
the standard library comes first, then our root and that of our dependencies (ROOT), then everything else.
"""

import sys


def own_order(path: list[str], roots: list[str]) -> list[str]:
    """The interpreter's path with the standard library first, and then `roots`."""
    import os  # loaded with the interpreter, from its own files

    library = os.path.dirname(os.__file__)
    inside = [entry for entry in path if entry == library or entry.startswith(library + os.sep)]
    inside = [entry for entry in inside if "-packages" not in entry]
    zips = [entry for entry in path if entry.endswith(".zip") and os.path.dirname(library) in entry][:1]
    first = [*zips, *inside] or [library]
    rest = [entry for entry in path if entry not in first]
    before = path.index(inside[0]) if inside else 0
    behind = [entry for entry in rest if path.index(entry) > before]
    return [*first, *roots, *behind, *(entry for entry in rest if entry not in behind)]


def _begin() -> None:
    loaded = frozenset(sys.modules)
    if not sys.flags.safe_path:
        del sys.path[0]  # the folder of this file
    path = list(sys.path)
    root_of_ours = __file__.rsplit("/", 3)[0]
    entry, root, *numbers = sys.argv[1:]
    sys.path[:] = own_order(path, [root_of_ours, root])
    # Without a file, as with `python -c`: multiprocessing in a job would take a file for the script.
    sys.modules["__main__"] = type(sys)("__main__")
    from workers.process import initial_state

    initial_state.record_initial_state(path, loaded)
    module, _, function = entry.partition(":")
    __import__(module)
    getattr(sys.modules[module], function)(*map(int, numbers))


if __name__ == "__main__":
    _begin()
