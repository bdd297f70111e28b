"""What is simulated: a machine by RAM size, by a real one's /proc files, or by a snapshot.

`load_machine` takes what the command line's ``--machine`` takes. A `Machine` says what the machine is and
produces the memory state that a run starts from.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from mmfw.errors import InputError
from mmfw.machine.layout import ListOrder
from mmfw.machine.pageblocks import ZoneSpan
from mmfw.machine.pcmodel import PcModel, boot_allocated_pages, parse_ram_size
from mmfw.machine.procdir import read_proc_dir
from mmfw.machine.snapshot import read_snapshot
from mmfw.state import NodeState

#: Sizes that documentation and tests use; any other size works as well.
PRESETS: Final = ("256M", "512M", "1G", "2G", "4G", "8G", "16G", "64G")


class MachineSource(Protocol):
    """What a machine's description must tell; see `Machine` for the fields."""

    @property
    def zones(self) -> tuple[ZoneSpan, ...]:
        """Populated zones, ascending index."""

    @property
    def nr_cpus(self) -> int:
        """Online CPUs."""

    @property
    def min_free_kbytes(self) -> int:
        """``vm.min_free_kbytes``; 0 where unknown."""

    def node_state(self, seed: int) -> NodeState:
        """State that a run starts from."""


@dataclass(frozen=True, slots=True)
class SnapshotSource:
    """A machine whose memory state is given in full."""

    state: NodeState

    @property
    def zones(self) -> tuple[ZoneSpan, ...]:
        """Populated zones."""
        return tuple(ZoneSpan(z.zone, z.start_pfn, z.spanned, z.present, z.managed) for z in self.state.zones)

    @property
    def nr_cpus(self) -> int:
        """Online CPUs."""
        return self.state.nr_cpus

    @property
    def min_free_kbytes(self) -> int:
        """``vm.min_free_kbytes``; 0 if the snapshot does not carry it."""
        return self.state.min_free_kbytes

    def node_state(self, seed: int) -> NodeState:
        """Copy of the state, the same for every seed."""
        del seed
        return deepcopy(self.state)


@dataclass(frozen=True, slots=True)
class Machine:
    """What is simulated.

    Attributes
    ----------
    name : str
        What the user called it.
    source : MachineSource
        Where its figures come from.
    """

    name: str
    source: MachineSource

    @property
    def zones(self) -> tuple[ZoneSpan, ...]:
        """Populated zones, ascending index: spans and sizes in pages."""
        return self.source.zones

    @property
    def nr_cpus(self) -> int:
        """Online CPUs."""
        return self.source.nr_cpus

    @property
    def min_free_kbytes(self) -> int:
        """``vm.min_free_kbytes``; 0 where unknown."""
        return self.source.min_free_kbytes

    @property
    def managed_pages(self) -> int:
        """Pages that the allocator has, in all zones."""
        return sum(zone.managed for zone in self.zones)

    def node_state(self, seed: int = 0) -> NodeState:
        """Memory state that a run starts from; a fresh one at each call.

        Parameters
        ----------
        seed : int
            Decides where free blocks lie if only their counts are known; without effect otherwise.

        Raises
        ------
        InputError
            No memory map can show the machine's counts.
        """
        return self.source.node_state(seed)


def machine_from_ram(text: str, nr_cpus: int = 1) -> Machine:
    """Machine of a RAM size, such as ``8G`` (see `mmfw.machine.pcmodel`).

    Raises
    ------
    InputError
        `text` is no size, or one that cannot be simulated.
    """
    pages = parse_ram_size(text)
    if pages is None:
        raise InputError(f"machine {text!r} is no RAM size; write one like {', '.join(PRESETS)}")
    if not 1 <= nr_cpus <= 8192:
        raise InputError(f"machine {text!r}: nr_cpus is {nr_cpus}; it should be 1..8192 (NR_CPUS)")
    machine = Machine(text, PcModel(pages, nr_cpus))
    if machine.managed_pages < 2 * boot_allocated_pages(pages, nr_cpus):
        raise InputError(f"machine {text!r} has too little RAM for {nr_cpus} CPUs; boot alone would fill it")
    return machine


def load_machine(spec: str, nr_cpus: int | None = None, list_order: ListOrder = "shuffled") -> Machine:
    """Machine of a RAM size, a folder of copied /proc files, or a snapshot file.

    Parameters
    ----------
    spec : str
        A size such as ``8G`` or ``1TiB``; else a folder, or a snapshot or allocator trace.
    nr_cpus : int, optional
        Online CPUs, 1 by default. Files tell how many there are, so that it may only repeat their number.
    list_order : {"shuffled", "ascending"}
        Order of the free lists of a machine from /proc files.

    Raises
    ------
    InputError
        Nothing of this name exists, it is wrong, or `nr_cpus` contradicts it.
    """
    if parse_ram_size(spec) is not None:
        return machine_from_ram(spec, 1 if nr_cpus is None else nr_cpus)
    path = Path(spec)
    try:
        path.stat()
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as fault:
        raise InputError(f"machine {spec[:40]!r} cannot be opened: {fault.__class__.__name__}") from None
    if path.is_dir():
        machine = Machine(path.resolve().name, read_proc_dir(path, list_order))
    elif path.is_file():
        machine = Machine(path.name, SnapshotSource(read_snapshot(path)))
    else:
        raise InputError(
            f"machine {spec!r} is neither a RAM size (such as 256M, 8G, 96G or 1TiB), nor a folder of /proc files,"
            " nor a snapshot file"
        )
    if nr_cpus is not None and nr_cpus != machine.nr_cpus:
        raise InputError(f"machine {spec!r} has {machine.nr_cpus} CPUs, not {nr_cpus}")
    return machine
