"""What a page about an experiment is made of: bins of the timeline, groups of failures, columns of the results
table, the words of the summary, and the assets that draw them. Pure but for reading the assets; where the facts
come from (files, a live run) and how a page gets to its reader must not be known here.
"""
