"""A policy: the dentry and inode caches are reclaimed slab by slab."""
