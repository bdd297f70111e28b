"""What a cache is told: its object, its shrinker, how it is used; and the table of Linux's shrinkers."""

from __future__ import annotations

from importlib.resources import files
from typing import Any, Literal

import tomli
from pydantic import BaseModel, ConfigDict, Field, model_validator


class CacheSpec(BaseModel):
    """One cache with its shrinker.

    `objects` says how many there are; without it the plugin's `total_pages` are shared out by `share`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, description="name of the shrinker, and of the account in mm.ledger")
    file: str = Field("", description="the kernel's source file that it stands for")
    kind: Literal["slab", "block"] = Field(
        "slab", description="slab: an object is one of a slab cache; block: it is a block of pages of its own"
    )
    slab_cache: str = Field("", description="name of the slab cache; the shrinker's if empty")
    object_size: int = Field(0, ge=0, description="bytes of a slab object")
    order: int = Field(0, ge=0, le=10, description="order of a block")
    seeks: int = Field(2, ge=0, description="cost of bringing an object back, as the shrinker says it")
    batch: int = Field(0, ge=0, description="objects per scan; 0 is the default of 128")
    needs_fs: bool = Field(False, description="SHRINK_STOP without __GFP_FS")
    second_chance: bool = Field(
        False, description="a scan spares once what was used since it was put on the LRU"
    )
    objects: int = Field(0, ge=0, description="objects at first, and keys that users ask for; 0: by share")
    share: float = Field(1, ge=0, description="part of total_pages, relative to the other caches' shares")
    pinned_percent: float = Field(
        0, ge=0, le=100, description="objects in use for the whole run, never on the LRU"
    )
    recreate_us: int = Field(
        10, ge=0, description="time it takes to make an object again, us, its memory aside"
    )
    size_from: str = Field("", description="where object_size comes from")

    @model_validator(mode="after")
    def _has_a_size(self) -> CacheSpec:
        if self.kind == "slab" and not 8 <= self.object_size <= 4096:
            raise ValueError(f"{self.name}: object_size is {self.object_size}; 8 to 4096 bytes are wanted")
        return self

    @property
    def bytes_per_object(self) -> int:
        """Bytes of memory of an object, without its part of what a slab wastes."""
        return self.object_size if self.kind == "slab" else 4096 << self.order


def table_rows() -> list[dict[str, Any]]:
    """Rows of the table of Linux's shrinkers that this distribution brings, as `CacheSpec` fields."""
    text = files("mmfw_generic_slab").joinpath("shrinkers.toml").read_text(encoding="utf-8")
    rows: list[dict[str, Any]] = tomli.loads(text)["caches"]
    return rows


def linux_shrinkers() -> tuple[CacheSpec, ...]:
    """The table of Linux's shrinkers."""
    return tuple(CacheSpec.model_validate(row) for row in table_rows())
