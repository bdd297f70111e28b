"""XFS's metadata in memory: buffers, inodes and dquots, and the shrinkers that free them."""

from mmfw_xfs_buf.buftarg import XfsBuftarg
from mmfw_xfs_buf.dquot import XfsDquots, XfsQmShrinker
from mmfw_xfs_buf.inode import XfsInodeCache
from mmfw_xfs_buf.inodegc import XfsInodegc, XfsInodegcShrinker
from mmfw_xfs_buf.mount import XfsMount, XfsSuperShrinker
from mmfw_xfs_buf.shrinker import XfsBufShrinker
from mmfw_xfs_buf.stats import Level
from mmfw_xfs_buf.types import LRU_REF, BufType

__all__ = [
    "LRU_REF",
    "BufType",
    "Level",
    "XfsBufShrinker",
    "XfsBuftarg",
    "XfsDquots",
    "XfsInodeCache",
    "XfsInodegc",
    "XfsInodegcShrinker",
    "XfsMount",
    "XfsQmShrinker",
    "XfsSuperShrinker",
]
