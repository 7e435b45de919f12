"""The words of the project, as data: events, records, settings, errors, and how they are written for
people. No state and no decision. Every other room may import from here.
"""
