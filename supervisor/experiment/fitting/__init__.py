"""Whether the jobs fit: what there is on this machine for them, by the settings, and which of them ask for
more. It refuses, and says so; who runs when is decided by core/dispatch.
"""
