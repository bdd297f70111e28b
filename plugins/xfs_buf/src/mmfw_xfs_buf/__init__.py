"""The buffer cache of XFS: what metadata is read into, and the shrinker that frees it."""

from mmfw_xfs_buf.buf import XfsBuf, XfsBuftarg
from mmfw_xfs_buf.shrinker import XfsBufShrinker

__all__ = ["XfsBuf", "XfsBufShrinker", "XfsBuftarg"]
