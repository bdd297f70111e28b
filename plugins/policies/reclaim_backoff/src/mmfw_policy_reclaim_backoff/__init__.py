"""A policy: TTM backs off for a while from orders that failed or cost evictions."""
