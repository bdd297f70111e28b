"""The dentry and inode caches of a filesystem, and the shrinker of its superblock."""

from mmfw_dcache.objects import CachedObjects
from mmfw_dcache.shrinker import SlabPageSuperShrinker, SuperShrinker
from mmfw_dcache.superblock import CachedFsObjects, SuperBlock
from mmfw_dcache.tree import Tree

__all__ = ["CachedFsObjects", "CachedObjects", "SlabPageSuperShrinker", "SuperBlock", "SuperShrinker", "Tree"]
