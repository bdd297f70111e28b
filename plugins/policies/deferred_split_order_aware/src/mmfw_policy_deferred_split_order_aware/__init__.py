"""A policy: deferred_split keeps huge pages that could not give the wanted order."""
