"""`longhaul exec`: any program as a job. It makes what a script would give `main`: options of its own, jobs of values
and files, the function, and which experiment is meant. It calls nothing of a run itself. Nothing about workers, records
or decisions stands here; what runs in a worker is in `workers.program`.
"""
