"""How one failure is told: its place, the peak that is its own, the thread that crashed."""

from __future__ import annotations

import msgspec

from supervisor.views.failure_lines import failure_line, kind, tail_lines
from tests.views.made import crash, failure

_STACKS = """step 1
Fatal Python error: Segmentation fault

Thread 0x00007efde51196c0 (most recent call first):
  File "/a/other.py", line 29 in wait

Current thread 0x00007efde63e4c40 (most recent call first):
  File "/a/model.py", line 30 in evaluate
  File "/a/model.py", line 40 in outer"""


def test_a_crash_is_named_by_signal_and_place() -> None:
    assert kind(crash(signal=11, where="model.py:30")) == "SIGSEGV model.py:30"
    assert kind(crash(signal=11, where="")) == "SIGSEGV"
    stopped = msgspec.structs.replace(failure(), outcome="timed_out", type="", where="model.py:12")
    assert kind(stopped) == "timed out model.py:12"


def test_of_the_stacks_of_a_crash_the_thread_that_crashed_is_shown() -> None:
    assert tail_lines(crash(output_tail=_STACKS)) == [
        "Fatal Python error: Segmentation fault",
        "Current thread 0x00007efde63e4c40 (most recent call first):",
        '  File "/a/model.py", line 30 in evaluate',
    ]


def test_a_peak_that_may_be_an_earlier_jobs_is_called_the_workers() -> None:
    assert "peak 2.0G)" in failure_line(crash(peak_rss=2 << 30))
    shared = failure_line(crash(peak_rss=None, worker_peak_rss=2 << 30))
    assert "its worker's peak 2.0G, perhaps by an earlier job)" in shared
