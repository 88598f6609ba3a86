"""The one place that writes files which have to survive a crash, and that locks folders.

durable    a file or a set of files: whole, or as before
locking    one process at a time in a folder
"""
