"""Files that have to survive a crash, and locks on folders.

durable    writes a file or a set of files: afterwards each is new and whole, or as before
locking    one process at a time in a folder
regular    opens a file for reading, and refuses what is no regular file
"""
