"""Real captures against the simulator, figure by figure."""
