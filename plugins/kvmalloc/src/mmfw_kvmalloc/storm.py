"""Workload ``kvmalloc-storm``: a task that calls kvmalloc again and again."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, Field, field_validator, model_validator

from mmfw_kvmalloc.ladder import Allocation, Kvmalloc

if TYPE_CHECKING:
    from mmfw import Mm

NSEC_PER_SEC: Final = 1_000_000_000
NSEC_PER_MSEC: Final = 1_000_000
#: Random numbers drawn at a time.
_DRAWN: Final = 4096


class StormParams(BaseModel):
    """One caller."""

    calls_per_second: int = Field(500, ge=1, le=1_000_000, description="calls a second of each task")
    min_kib: int = Field(16, description="smallest size, KiB, a power of two from 1 to 1024")
    max_kib: int = Field(256, description="largest size, KiB; each power of two between is as likely")
    short_lived_percent: int = Field(
        50, ge=0, le=100, description="calls whose memory is used and freed at once"
    )
    hold_ms: int = Field(1_000, ge=1, description="ms the other calls' memory is held")

    @field_validator("min_kib", "max_kib")
    @classmethod
    def _power_of_two(cls, value: int) -> int:
        if not 1 <= value <= 1024 or value & (value - 1):
            raise ValueError("a power of two from 1 to 1024 is wanted")
        return value

    @model_validator(mode="after")
    def _smallest_is_not_above_largest(self) -> StormParams:
        if self.min_kib > self.max_kib:
            raise ValueError(f"min_kib {self.min_kib} is above max_kib {self.max_kib}")
        return self


@dataclass(slots=True)
class Storms:
    """How many storms began; attached to the `Mm`, it names their random streams."""

    nr_started: int = 0


def kvmalloc_storm(mm: Mm, params: StormParams) -> None:
    """Call kvmalloc with GFP_KERNEL at a rate, write to what it gave, and free it at once or later, until killed.

    A task that is late goes on at once, and keeps its beat from there.
    """
    kv, storms, sched = mm.attached.get(Kvmalloc), mm.attached.get(Storms), mm.sched
    assert kv is not None, "module_init attaches it"
    assert storms is not None, "module_init attaches it"
    storms.nr_started += 1
    rng = mm.rng(f"kvmalloc-storm {storms.nr_started}")
    nr_sizes = (params.max_kib // params.min_kib).bit_length()
    period = NSEC_PER_SEC // params.calls_per_second
    held: deque[tuple[int, Allocation]] = deque()
    # Tasks do not all begin with one beat.
    turn = sched.now + int(rng.below(min(period, 1 << 31), 1)[0])
    try:
        while True:
            sizes = (params.min_kib * 1024 << rng.below(nr_sizes, _DRAWN)).tolist()
            short = (rng.below(100, _DRAWN) < params.short_lived_percent).tolist()
            for size, at_once in zip(sizes, short, strict=True):
                if turn > sched.now:
                    sched.nanosleep(turn - sched.now)
                else:
                    turn = sched.now
                    sched.charge_user(mm.costs.syscall, "user")
                turn += period
                while held and held[0][0] <= sched.now:
                    kv.kvfree(held.popleft()[1])
                found = kv.kvmalloc(size)
                if found is None:
                    continue
                mm.charge(-(-size // 4096) * mm.costs.zero_page, "kvmalloc user")
                if at_once:
                    kv.kvfree(found)
                else:
                    held.append((sched.now + params.hold_ms * NSEC_PER_MSEC, found))
    finally:
        for _, found in held:
            kv.kvfree(found)
