"""Benchmarks: the compiled allocator beside C and pure Python, machine creation, start-up.

``python -m benchmarks`` prints tables; ``pytest benchmarks --benchmark-only`` keeps figures and gates the
ratios. Neither is part of the default test run.
"""
