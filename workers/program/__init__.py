"""A program of any language as a job (`longhaul exec`): its command line, its environment, its processes, its end
and its result. Everything runs in a worker, or in the process of a replay. Nothing here knows where jobs come
from, and nothing is decided about further attempts.
"""
