"""Policies that say what they act on: where that is missing they change nothing, whatever they hook."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mmfw.compare.policies import PolicyBook
from mmfw.discovery import discover
from mmfw.policies import GROUP, MAINLINE, parse_policy
from mmfw.run import RunRequest, prepare, run

pytest.importorskip("mmfw_probe")

INSTALLED = [each.name for each in discover() if each.group == GROUP and each.name != MAINLINE]
#: Half a second of the captured loop: kswapd is woken for high orders, compaction runs, objects are evicted.
LOOP = RunRequest(scenario="object-loop", duration="1500ms")


@pytest.fixture(scope="module")
def book() -> PolicyBook:
    return PolicyBook()


@pytest.fixture(scope="module")
def mainline_digest() -> str:
    result = run(LOOP)
    assert result.metrics["probe_evictions"]
    assert result.kswapd_wakes_by_order["9"]
    assert result.vmstat["compact_stall"]
    return result.digest


def test_what_acts_only_on_absent_plugins_leaves_the_digest(book: PolicyBook, mainline_digest: str) -> None:
    there = set(prepare(LOOP).plugins.names)
    elsewhere = [name for name in INSTALLED if book.info(name).acts_on]
    digests = {}
    for name in elsewhere:
        assert not there & set(book.info(name).acts_on)
        digests[name] = run(replace(LOOP, policies=parse_policy(name))).digest
    assert digests == dict.fromkeys(elsewhere, mainline_digest)


def test_some_policies_say_what_they_act_on(book: PolicyBook) -> None:
    pytest.importorskip("mmfw_policy_reclaim_backoff")
    pytest.importorskip("mmfw_policy_no_kswapd_kick")
    assert book.info("reclaim-backoff").acts_on == ("ttm",)
    assert book.info("no-kswapd-kick").acts_on == ()


def test_mainline_by_name_is_the_kernel_without_any_policy(mainline_digest: str) -> None:
    asked = replace(LOOP, policies=parse_policy("mainline"))
    assert prepare(asked).plugins.names == ("probe",)
    assert run(asked).digest == mainline_digest
