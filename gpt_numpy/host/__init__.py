"""What this process runs on: the processors it may use, a compiler or none, the process it was forked from, a terminal."""
