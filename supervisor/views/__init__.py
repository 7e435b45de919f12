"""What the user sees of a run: the live frame, lines, the summary, the log. A view sees snapshots,
decides nothing and reads no storage. It may fail, and the run goes on.
"""
