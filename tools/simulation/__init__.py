"""The simulation of tools/simulate.py: disk, time, workers and chance are simulated; core and store are real."""
