"""Real allocator traces against the simulator, pfn by pfn."""
