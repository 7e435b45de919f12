"""What a job sees of itself: id, seed, directory, saved state, reports. Every script imports it, so it
imports little. Nothing that only the worker's loop needs.
"""
