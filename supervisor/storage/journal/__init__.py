"""The bytes of the journal. Whoever wants to know how a line is made asks `journal_format`. What a
record means is not known here.
"""
