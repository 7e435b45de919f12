"""The bytes of the journal: lines, files, reading by offset. `journal_format` alone knows how a line is
made. What a record means must not be known here.
"""
