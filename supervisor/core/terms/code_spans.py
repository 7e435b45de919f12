"""Which code each result was made by. Pure.

Lease numbers rise over an experiment, and every record of an attempt has one. So nothing is written for a
single job: it is enough to know from which lease on the code was another one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import compress

import msgspec

DIGITS = 16  # of a file's hash that are recorded
UNKNOWN = "unknown"  # the version of results that an older longhaul has recorded


class CodeSpan(msgspec.Struct, omit_defaults=True):
    """Leases from the number `since` on ran this version of the code, until the next span.

    version: see `code_files.version_of`; with a plus sign, if workers may have imported files that
    were changed while the run went on. changed: what differs from the span before it: names of files, or of
    the function. before: the digests that the parts which changed had in the span
    before (`code_changes.parts_of`); older versions have not recorded them.
    """

    version: str
    since: int
    changed: list[str] = []
    before: dict[str, str] = {}


def unsure(spans: list[CodeSpan], lease: int, file: str) -> None:
    """From this lease on a file may differ from what it was when the run began.

    Workers do not report in the order of their leases, so the earliest lease counts.
    """
    if not spans:
        return
    last = spans[-1]
    if not last.version.endswith("+"):
        spans.append(CodeSpan(last.version + "+", max(lease, last.since), [file]))
        return
    earliest = spans[-2].since if len(spans) > 1 else 1  # earlier leases are of another code
    files = last.changed if file in last.changed else [*last.changed, file]
    spans[-1] = CodeSpan(last.version, max(min(lease, last.since), earliest), files)


class CodeSpans:
    """All spans of an experiment, the oldest first."""

    def __init__(self, spans: Iterable[CodeSpan] = ()) -> None:
        self.spans = list(spans)
        self._begins = [span.since for span in self.spans]

    @property
    def uniform(self) -> bool:
        """Whether only one version of the code ever ran."""
        return len(self.spans) == 1 and self.spans[0].since <= 1

    def version(self, lease: int) -> str | None:
        """The version that ran under that lease; None if it is unknown, or if nothing ran (lease 0)."""
        place = bisect_right(self._begins, lease)
        return self.spans[place - 1].version if place and lease else None

    def versions(self, leases: Sequence[int]) -> list[str | None]:
        """`version` of many leases."""
        if not self.spans:
            return [None] * len(leases)
        if self.uniform and 0 not in leases:
            return [self.spans[0].version] * len(leases)
        return list(map(self.version, leases))

    def tally(self, made_by: Sequence[str | None], chosen: bytes) -> dict[str | None, int]:
        """How many of these leases each version has, counting only those with a 1 in `chosen`."""
        if self.uniform:
            return {self.spans[0].version: chosen.count(1)}
        return Counter(compress(made_by, chosen))

    def known(self) -> list[str]:
        """Each version once, the oldest first."""
        return list(dict.fromkeys(span.version for span in self.spans))

    def after(self, version: str) -> tuple[dict[str, str], list[str]]:
        """What has changed since this version last ran (`UNKNOWN`: what ran before the first version).
        Returns the digests that the changed parts had in it, and for spans without digests the names of what
        changed. A part may have been changed back."""
        places = [place for place, span in enumerate(self.spans, 1) if span.version == version]
        digests: dict[str, str] = {}
        words: list[str] = []
        later = self.spans[places[-1] if places else 0 :]
        for span in reversed(later):
            digests.update(span.before)  # those of the earliest span count
            # The digests of the next span tell what was edited during a run.
            if not span.before and (span is later[-1] or not span.version.endswith("+")):
                words[:0] = span.changed
        return digests, list(dict.fromkeys(words))

    def edited_during(self, version: str) -> list[str]:
        """Files that were changed while runs of this version went on, if it has a plus sign."""
        files = [file for span in self.spans if span.version == version for file in span.changed]
        return list(dict.fromkeys(files)) if version.endswith("+") else []
