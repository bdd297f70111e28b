"""The loads of mmfw's captured experiments: a kernel module's fills, requests, object loop, and a memory hog."""
