"""Comparing policies over seeds (`mmfw.compare.model` has what comes of it)."""
