"""What runs in a worker process. Light: nothing of `supervisor` is ever imported here."""

from __future__ import annotations

from workers.current import current_job

__all__ = ["current_job"]
