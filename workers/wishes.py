"""What a job may raise to say what should become of it. Light: every experiment imports it."""

from __future__ import annotations


class Interrupted(Exception):
    """The job has stopped in the middle, of its own accord, and wants to run again.

    Meant for `current_job().stopping`: save, raise this, and the attempt is `interrupted`,
    which costs the job nothing; it runs again when the experiment is resumed. Raised while
    nothing is being stopped, it sends the job to the end of the line, ten times in a run at
    most; after that it is an exception like any other.
    """
