"""The lists around a pfn, as text: what one needs to see why another page came."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmfw.state import MAX_ORDER, MIGRATE_TYPES, MIGRATETYPE_NAMES, NR_PCP_LISTS

if TYPE_CHECKING:
    from mmfw.mm.mmzone import PglistData
    from mmfw.mm.pages import Memory

_SHOWN: Final = 6


def _heads(memory: Memory, head: int) -> str:
    pfns = memory.list_pfns(head, _SHOWN + 1)
    text = " ".join(str(int(p)) for p in pfns[:_SHOWN])
    return text + (" ..." if len(pfns) > _SHOWN else "")


def lists_around(pgdat: PglistData, pfns: list[int], order: int) -> tuple[str, ...]:
    """Free and per-CPU lists near an order in the zones of some pfns, list head first.

    Parameters
    ----------
    pgdat : PglistData
        The node, right after the operation that differed.
    pfns : list of int
        Pages in question; all zones are shown if there are none.
    order : int
        Order of the operation; lists of this order up to the first that is not empty, and one more, are
        shown.
    """
    memory = pgdat.memory
    zones = [z for z in pgdat.node_zones if z.managed_pages]
    chosen = [z for z in zones if any(z.zone_start_pfn <= p < z.zone_end_pfn for p in pfns)] or zones
    lines: list[str] = []
    for zone in chosen:
        row = zone.zone_idx
        mins = "/".join(str(w) for w in zone.watermark[:3])
        lines.append(
            f"zone {zone.name}: free {zone.nr_free_pages} (snapshot {zone.free_pages_snapshot()}), "
            f"min/low/high {mins}, boost {zone.watermark_boost}"
        )
        for pindex in range(NR_PCP_LISTS):
            text = _heads(memory, memory.pcp_head(0, row, pindex))
            list_order = pindex // 3 if pindex < 12 else 9
            if text and list_order == order:
                lines.append(f"  pcp list {pindex} (order {list_order}): {text}")
        shown = 0
        for o in range(order, MAX_ORDER):
            found = False
            for mt in range(MIGRATE_TYPES):
                text = _heads(memory, memory.free_head(row, o, mt))
                if text:
                    found = True
                    lines.append(f"  free_area[{o}].{MIGRATETYPE_NAMES[mt]}: {text}")
            shown += found
            if shown == 2:
                break
    return tuple(lines)
