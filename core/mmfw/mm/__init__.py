"""The simulated kernel: files carry the names of the kernel's own under mm/."""
