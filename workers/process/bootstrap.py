# The script that every interpreter of ours is started with: `python bootstrap.py ENTRY ROOT NUMBER...`
"""Find our own modules in the right files, and hand over to `workers.<ENTRY>`.

Nothing may be imported by name before the path is in order: what stands in front of the
standard library belongs to the script (its folder, PYTHONPATH), or to nobody (this folder, or
the current directory). So for our own imports the standard library comes first, then our own
root and that of what we depend on (ROOT), then everything else.
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
    # As `python -c` has it: no file that multiprocessing in a job would take for the script.
    sys.modules["__main__"] = type(sys)("__main__")
    from workers.process import initial_state

    initial_state.note(path, loaded)
    module, _, function = entry.partition(":")
    __import__(module)
    getattr(sys.modules[module], function)(*map(int, numbers))


if __name__ == "__main__":
    _begin()
