"""Files that are whole or not there: the operations that durability rests on, names and lock of one
experiment. No format of a file.
"""
