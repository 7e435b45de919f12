"""Files and objects for people and programs to read: results, logs_final.json, statistics.json, the
progress file. Nothing that a resume relies on, and no terminal.
"""
