"""Plain twins of the compiled loops: the simplest data structures, no speed, no shared code with core."""
