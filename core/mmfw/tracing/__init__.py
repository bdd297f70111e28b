"""ftrace for the simulated kernel: which events there are, what they print, and the file they end up in."""
