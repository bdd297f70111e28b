from __future__ import annotations

from dataclasses import dataclass

import pytest

from mmfw.attachments import Attachments, attach, attachment
from mmfw.types import ShrinkControl


@dataclass
class Order:
    order: int


@dataclass
class WiderOrder(Order):
    beneficial: int = 9


def test_nothing_is_allocated_until_something_is_attached() -> None:
    sc = ShrinkControl(gfp_mask=0, nid=0)
    assert attachment(sc, Order) is None
    assert sc.attached is None


def test_attached_value_comes_back_by_class() -> None:
    sc = ShrinkControl(gfp_mask=0, nid=0)
    attach(sc, Order(9))
    assert attachment(sc, Order) == Order(9)


def test_later_value_of_a_class_takes_the_place_of_the_earlier() -> None:
    sc = ShrinkControl(gfp_mask=0, nid=0)
    attach(sc, Order(9))
    attach(sc, Order(0))
    assert sc.attached is not None
    assert list(sc.attached) == [Order(0)]


def test_subclass_is_another_field() -> None:
    held = Attachments()
    held.put(WiderOrder(3))
    assert held.get(Order) is None
    held.put(Order(4))
    assert (held.get(WiderOrder), held.get(Order), len(held)) == (WiderOrder(3), Order(4), 2)


@pytest.mark.parametrize(("value", "kind"), [(3, "int"), ("hint", "str"), ({}, "dict"), (None, "NoneType")])
def test_builtin_value_is_refused(value: object, kind: str) -> None:
    with pytest.raises(TypeError) as refused:
        attach(ShrinkControl(gfp_mask=0, nid=0), value)
    assert str(refused.value) == f"cannot attach a bare {kind}; attach an instance of a class of your own"


def test_structs_do_not_share_attachments() -> None:
    one, other = ShrinkControl(gfp_mask=0, nid=0), ShrinkControl(gfp_mask=0, nid=0)
    attach(one, Order(1))
    assert attachment(other, Order) is None
