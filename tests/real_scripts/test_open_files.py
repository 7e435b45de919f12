"""Files that the script has opened: one process, one position."""

from __future__ import annotations

import os

import pytest

from tests.real_scripts.conftest import RealScript

READERS = """
    import fcntl, gzip, io, mmap, os, random, sqlite3, struct, tarfile, zipfile

    HERE = os.path.dirname(os.path.abspath(__file__))
    PATH = os.path.join(HERE, f"data-{os.getpid()}")
    with open(PATH, "wb") as file:
        for n in range(40000):
            file.write(struct.pack("<Q", n))
    with zipfile.ZipFile(PATH + ".zip", "w", zipfile.ZIP_DEFLATED) as file:
        for n in range(50):
            file.writestr(f"{n}", str(n) * 5000)
    with tarfile.open(PATH + ".tar", "w") as file:
        file.add(PATH + ".zip", "z")
    with gzip.open(PATH + ".gz", "w") as file:
        file.write(b"".join(struct.pack("<Q", n) for n in range(40000)))

    RAW = os.open(PATH, os.O_RDONLY)
    UNBUFFERED = open(PATH, "rb", buffering=0)
    BUFFERED = open(PATH, "rb")
    BEGUN = open(PATH, "rb")
    BEGUN.read(8)
    TEXT = open(__file__)
    ZIP = zipfile.ZipFile(PATH + ".zip")
    TAR = tarfile.open(PATH + ".tar")
    GZIP = gzip.open(PATH + ".gz")
    DUPLICATE = os.dup(RAW)
    os.set_inheritable(DUPLICATE, True)
    FOLDER = os.open(HERE, os.O_RDONLY)
    WORDS = sorted(os.listdir(HERE))
    for ending in ("", ".zip", ".tar", ".gz"):
        os.unlink(PATH + ending)
    PARAMS = [{"seed": seed} for seed in range(60)]

    def evaluate(seed):
        found = [os.get_inheritable(DUPLICATE), os.get_inheritable(RAW),
                 fcntl.fcntl(RAW, fcntl.F_GETFL) & os.O_ACCMODE]
        rng = random.Random(seed)
        wrong = 0
        for _ in range(300):
            n = rng.randrange(40000)
            for read in (from_raw, from_duplicate, from_file):
                wrong += read(n) != n
        os.lseek(RAW, 80, 0)
        found.append(os.lseek(DUPLICATE, 0, 1))
        n = rng.randrange(50)
        wrong += ZIP.read(str(n)) != str(n).encode() * 5000
        GZIP.seek(8 * n)
        wrong += struct.unpack("<Q", GZIP.read(8)) != (n,)
        wrong += len(TAR.extractfile("z").read()) < 1000
        TEXT.seek(0)
        wrong += len(TEXT.readlines()) < 50
        wrong += sorted(os.listdir(FOLDER)) == []
        return [wrong, *found]

    def from_raw(n):
        os.lseek(RAW, 8 * n, 0)
        return struct.unpack("<Q", os.read(RAW, 8))[0]

    def from_duplicate(n):
        os.lseek(RAW, 8 * n, 0)
        return struct.unpack("<Q", os.read(DUPLICATE, 8))[0]

    def from_file(n):
        for file in (UNBUFFERED, BUFFERED, BEGUN):
            file.seek(8 * n)
            if struct.unpack("<Q", file.read(8))[0] != n:
                return -1
        return n
"""


def test_each_worker_reads_at_a_position_of_its_own(real_script: RealScript) -> None:
    real_script.write(READERS)
    assert real_script.run("--workers", "3") == real_script.bare()


def test_a_file_that_was_read_in_part_goes_on_where_the_script_had_stopped(real_script: RealScript) -> None:
    real_script.write("""
        import os
        with open("lines", "w") as file:
            file.writelines(f"line {n}\\n" for n in range(100000))
        LINES = open("lines")
        HEAD = [LINES.readline() for _ in range(3)]
        PARAMS = [{}]
        def evaluate():
            return [LINES.readline(), sum(1 for _ in LINES)]
    """)
    assert real_script.run() == real_script.bare()


@pytest.mark.parametrize("mode", ["a", "w"])
def test_writers_stay_shared_and_do_not_overwrite_each_other(real_script: RealScript, mode: str) -> None:
    real_script.write(f"""
        import os
        LOG = open(f"log-{{os.getppid()}}", {mode!r}, buffering=1)
        PARAMS = [{{"n": n}} for n in range(200)]
        def evaluate(n):
            LOG.write(f"{{n}}\\n")
            return n
    """)
    assert real_script.run("--workers", "3") == list(range(200))
    logs = [path.read_text().split() for path in real_script.folder.glob("log-*")]
    assert sorted(int(word) for words in logs for word in words) == list(range(200))


def test_a_lock_of_the_script_is_held_until_the_end(real_script: RealScript) -> None:
    real_script.write("""
        import fcntl, os
        LOCKED = open(__file__)
        fcntl.flock(LOCKED, fcntl.LOCK_SH)
        PARAMS = [{"n": n} for n in range(4)]
        def evaluate(n):
            with open(__file__) as another:
                try:
                    fcntl.flock(another, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return "locked"
            return "free"
    """)
    assert real_script.run() == real_script.bare() == ["locked"] * 4


def test_what_the_supervisor_has_open_is_not_in_its_workers(real_script: RealScript) -> None:
    real_script.write("""
        import os
        SECRET = os.open(__file__, os.O_RDONLY) if "LONGHAUL_EXPERIMENT" not in os.environ else None
        if SECRET is not None:
            os.set_inheritable(SECRET, True)
        PARAMS = [{"n": n} for n in range(4)]
        def evaluate(n):
            names = []
            for number in os.listdir("/proc/self/fd"):
                try:
                    names.append(os.readlink(f"/proc/self/fd/{number}"))
                except OSError:
                    pass
            return __file__ in names
    """)
    assert real_script.run() == [False] * 4
    assert os.path.exists(real_script.script)


def test_a_file_that_cannot_be_opened_anew_is_named_once(real_script: RealScript) -> None:
    name = os.fsdecode(b"d\xe4ta")
    (real_script.folder / name).write_text("data")
    real_script.write("""
        import glob, os, signal

        REFUSED = os.open(glob.glob("d*ta")[0], os.O_RDONLY)
        OPENED = os.open(__file__, os.O_RDONLY)
        PLACE = f"/proc/self/fd/{REFUSED}"
        another = os.open

        def refuse(path, *others, **more):
            if path == PLACE:
                raise PermissionError(13, "Permission denied")
            return another(path, *others, **more)

        os.open = refuse
        PARAMS = [{"n": n} for n in range(4)]

        def evaluate(n):
            if n == 1 and not os.path.exists("killed"):
                open("killed", "w").close()
                os.kill(os.getppid(), signal.SIGKILL)  # another zygote finds the same
                os.kill(os.getpid(), signal.SIGKILL)
            return os.read(another(PLACE, os.O_RDONLY), 4).decode()
    """)
    done = real_script.python("--workers", "2")
    assert done.returncode == 0, done.stderr
    said = "".join(done.stderr.split())
    assert said.count("cannotopenanew") == 1, done.stderr
    assert "ta:Permissiondenied):theyshareoneposition" in said and "setup()" in said, done.stderr
