"""What the debate predicted, held against runs: ``python -m verdict`` makes the runs and writes docs/verdict.md.

`studies.toml` says what is run, `predictions` and `statements` what is claimed and which figures would show it or
refute it; all of that stood here before the first study ran, though not before single runs of the loop had been seen.
`frozen.toml` has the digests of the scenario files and of the cost table as they were then.
"""
