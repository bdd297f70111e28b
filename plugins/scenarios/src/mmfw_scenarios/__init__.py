"""Scenarios that need several plugins; there is no code here."""
