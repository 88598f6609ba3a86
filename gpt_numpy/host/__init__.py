"""The surroundings of this process: processors, compiler, parent process, control group, terminal."""
