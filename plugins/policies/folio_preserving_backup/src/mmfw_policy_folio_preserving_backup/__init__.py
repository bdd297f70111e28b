"""A policy: TTM backs objects up in whole blocks."""
