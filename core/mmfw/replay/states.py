"""A trace's state lines: told apart are what is no state record, and a state that no kernel was ever in.

The first is a wrong file. The second is a well-formed line whose numbers contradict each other, so it
differs from the state that the trace was taken in, whatever that was.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from mmfw.errors import InputError
from mmfw.machine.jsonread import Node
from mmfw.machine.snapshot import node_state_from_record
from mmfw.state import NodeState

_ANY: Final = {"low": -(2**63), "high": 2**63 - 1}
_ZONE_INTEGERS: Final = (
    "start_pfn", "spanned", "present", "managed", "watermark_boost", "nr_reserved_highatomic", "flags",
    "vm_free", "percpu_drift_mark", "nr_isolate_pageblock", "pageset_high", "pageset_batch",
    "pageblock_start_pfn",
)  # fmt: skip
_PCP_INTEGERS: Final = ("count", "high", "batch", "free_factor", "expire")


class InconsistentState(Exception):
    """A state whose numbers contradict each other; the text says which."""


def read_state(record: Mapping[str, Any], *, file: str, line: int, watermark_boost_factor: int) -> NodeState:
    """State of a trace's state line.

    Raises
    ------
    InputError
        Something is missing or of the wrong kind; names file, line and key.
    InconsistentState
        Everything is there, but it cannot be true.
    """
    header = {"watermark_boost_factor": watermark_boost_factor}
    root = Node(record, "", file, line)
    try:
        node = node_state_from_record(record, header, file, line)
    except InputError as fault:
        _check_kinds(root)
        raise InconsistentState(str(fault).removeprefix(f"{file}:{line}: ")) from None
    if node.nr_cpus != 1:
        raise root.error(f"has {node.nr_cpus} CPUs; a trace is of one")
    return node


def _check_kinds(root: Node) -> None:
    root.key("totalreserve_pages").integer(**_ANY)
    for zone in root.key("zones").items():
        zone.key("zone").text()
        for name in _ZONE_INTEGERS:
            zone.key(name).integer(**_ANY)
        for name in ("min", "low", "high", "promo"):
            zone.key("watermark").key(name).integer(**_ANY)
        for name in ("vm_free_cpu_diff", "stat_threshold"):
            for item in _each(zone.key(name)):
                item.integer(**_ANY)
        zone.key("lowmem_reserve").array()
        zone.key("pageblock_mt").text()
        zone.key("pageblock_lru").pairs()
        for area in zone.key("free_area").items():
            area.key("nr_free").integer(**_ANY)
            for pfns in area.key("lists").items():
                pfns.array()
        for pcp in _each(zone.key("pcp")):
            for name in _PCP_INTEGERS:
                pcp.key(name).integer(**_ANY)
            for pairs in pcp.key("lists").items():
                pairs.pairs()


def _each(node: Node) -> list[Node]:
    return node.items() if node.is_array() else [node]
