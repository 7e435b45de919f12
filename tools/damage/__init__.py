"""What becomes of a batch that is damaged, with longhaul and with its peers: rows of tools/bench.py in words.

It measures no speed: that is in tools/benchmark.
"""
