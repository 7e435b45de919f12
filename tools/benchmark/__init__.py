"""The benchmark of tools/bench.py: its rows and samples, the programs that are measured, the report."""
