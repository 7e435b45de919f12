"""What stands in the environment of every process of an experiment, to be found by.

Light on purpose: it is needed before most of the program is imported.
"""

MARK = "LONGHAUL_EXPERIMENT"  # "<experiment id>:<uuid>"
INCARNATION = "LONGHAUL_INCARNATION"  # the number of the worker process that it comes from
NOBODY = "0000000000"  # of no worker; as wide as all, since it is written over where others see it


def incarnation_text(incarnation: int) -> str:
    return str(incarnation).zfill(len(NOBODY))
