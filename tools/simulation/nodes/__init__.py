"""Simulated hosts under the real core, the real engine of several places and the real agents: what the wire between
them does, who stands still, and who dies, is drawn from a seed. Only time, wires, processes and carriers are fake.
"""
