"""One start of the program, from the request to the exit code: `execution` wires core, engine, storage
and view together, `loop` waits, decides, records and performs. No decision about a job, and no
format of a file.
"""
