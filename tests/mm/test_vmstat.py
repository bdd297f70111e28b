from __future__ import annotations

from mmfw.jit import events
from mmfw.jit import page as pg
from mmfw.mm.vmstat import VmEvent


def test_compiled_loops_and_python_agree_on_every_counter():
    offsets = {name: value for name, value in vars(events).items() if isinstance(value, int)}
    assert len(offsets) > 20
    for name, value in offsets.items():
        wanted = "pgskip_dma" if name == "PGSKIP" else name.lower()
        assert VmEvent[wanted] == value
    assert len(VmEvent) <= pg.NR_EVENTS
    assert pg.S_EVENT + pg.NR_EVENTS <= pg.S_HEADER
    assert pg.S_NODE_STAT + pg.NR_NODE_STATS <= pg.S_EVENT
