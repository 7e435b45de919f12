"""Environment variables by which the processes of an experiment are found.

It imports nothing: it is needed before most of the program is imported.
"""

EXPERIMENT_TAG = "LONGHAUL_EXPERIMENT"  # "<experiment id>:<uuid>"
INCARNATION = "LONGHAUL_INCARNATION"  # number of the worker process that it comes from
NOBODY = "0000000000"  # no worker; as wide as every number, which is written over it in place


def incarnation_text(incarnation: int) -> str:
    return str(incarnation).zfill(len(NOBODY))
