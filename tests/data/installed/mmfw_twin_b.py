raise RuntimeError("never imported by these tests")
