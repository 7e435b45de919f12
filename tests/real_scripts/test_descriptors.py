"""What is open of ours in a worker is out of a job's way, and is never taken for what the job opened."""

from __future__ import annotations

from tests.real_scripts.conftest import RealScript

CLOSERS = """
    import os, resource, sys, tempfile, time
    FOLDER = os.path.dirname(os.path.abspath(__file__))
    LIMIT = min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 2000)
    KEPT = []

    def open_many(many):
        for n in range(many):
            file = open(os.path.join(FOLDER, f"opened-{os.getpid()}-{n}"), "w+")
            file.write("mine")
            file.flush()
            KEPT.append(file)

    def check():
        found = []
        for file in KEPT:
            file.seek(0)
            found.append(file.read() == "mine")
            file.close()
        KEPT.clear()
        return [len(found), all(found)]

    def replace(numbers):
        file = open(os.path.join(FOLDER, f"replaced-{os.getpid()}"), "w+")
        file.write("mine")
        file.flush()
        for number in numbers:
            if number != file.fileno():
                os.dup2(file.fileno(), number)
        KEPT.append(file)

    def close_in_a_child():
        pid = os.fork()
        if pid == 0:
            os.closerange(3, LIMIT)
            open_many(20)
            os._exit(check() != [20, True])
        return os.waitpid(pid, 0)[1]

    WAYS = {
        "small range": lambda: [os.closerange(3, 256), open_many(20)][0],
        "large range": lambda: [os.closerange(3, LIMIT), open_many(20)][0],
        "one by one": lambda: [close(n) for n in range(3, LIMIT)] and open_many(20),
        "all that are open": lambda: [close(int(n)) for n in os.listdir("/proc/self/fd") if int(n) > 2]
            and open_many(20),
        "many": lambda: [os.closerange(3, LIMIT), open_many(min(1100, LIMIT - 50))][0],
        "replaced": lambda: replace(range(3, LIMIT)),
        "closed late": lambda: [os.closerange(3, LIMIT), time.sleep(2.5)][0],
        "nothing": lambda: None,
        "in a child": close_in_a_child,
    }
    PARAMS = [{"way": way} for way in WAYS for _ in range(1 if "late" in way else 2)]
    PARAMS += [{"way": "nothing"} for _ in range(50)]

    def close(n):
        try:
            os.close(n)
        except OSError:
            pass
        return 1

    def evaluate(way):
        found = WAYS[way]()
        print("printed", way)
        checked = check()
        for n in range(1500 if way == "replaced" else 0):
            if n > 2:
                close(n)
        return [way, found if way == "in a child" else None, checked, "x" * (10000 if way == "many" else 1)]
"""


def test_a_job_that_closes_all_descriptors_completes_and_its_files_stay_its_own(
    real_script: RealScript,
) -> None:
    real_script.write(CLOSERS)
    expected = real_script.bare()
    for method in ("auto", "spawn"):
        words = ("--workers", "2", "--start-method", method, "--experiment-id", f"with-{method}")
        assert real_script.run(*words) == expected
        logs = list(real_script.output.glob(f"with-{method}/output/job*.log"))
        assert len(logs) == 67 and all("printed" in log.read_text() for log in logs)
        for path in real_script.folder.glob("opened-*"):
            assert path.read_text() == "mine"
        assert not list(real_script.output.glob(f"with-{method}/output/%*.log"))


def test_a_script_that_closes_all_descriptors_when_it_is_imported(real_script: RealScript) -> None:
    real_script.write("""
        import os
        if "LONGHAUL_EXPERIMENT" in os.environ:
            os.closerange(3, 5000)
        FILES = [open(__file__) for _ in range(20)]
        PARAMS = [{"n": n} for n in range(5)]
        def evaluate(n):
            return len(FILES[n].read()) > 100
    """)
    assert real_script.run() == [True] * 5


def test_nothing_of_ours_is_open_in_what_a_job_forks_and_it_can_report(real_script: RealScript) -> None:
    real_script.write("""
        import os, time
        from workers import current_job
        PARAMS = [{"n": n} for n in range(2)]
        def evaluate(n):
            reader, writer = os.pipe()
            pid = os.fork()
            if pid == 0:
                found = [int(name) for name in os.listdir("/proc/self/fd")]
                found = [n for n in found if n > 2 and n not in (reader, writer) and exists(n)]
                current_job().report(0.5)
                os.write(writer, repr(found).encode())
                os._exit(0)
            os.close(writer)
            with open(reader) as file:
                found = file.read()
            os.waitpid(pid, 0)
            return found
        def exists(number):
            try:
                os.fstat(number)
                return True
            except OSError:
                return False
    """)
    assert real_script.run() == real_script.bare() == ["[]"] * 2


def test_jobs_of_any_length_close_all_descriptors_and_no_worker_dies(real_script: RealScript) -> None:
    """Short ones follow each other without a look around in between."""
    real_script.write("""
        import os, time
        PARAMS = [{"n": n} for n in range(600)]
        def evaluate(n):
            if n % 2:
                os.closerange(0, 1000)
            time.sleep((n % 5) * 0.00005)
            return n
    """)
    assert real_script.run("--workers", "2") == list(range(600))
