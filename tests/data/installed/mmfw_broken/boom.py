raise ImportError("no backend:\n  install one")
