"""kvmalloc: a block if one is to be had, else single pages mapped side by side."""

from mmfw_kvmalloc.ladder import Allocation, Kvmalloc
from mmfw_kvmalloc.rules import Rules, kmalloc_gfp_adjust
from mmfw_kvmalloc.vmalloc import Vmalloc, VmStruct

__all__ = ["Allocation", "Kvmalloc", "Rules", "VmStruct", "Vmalloc", "kmalloc_gfp_adjust"]
