"""Ten falsifiable statements on the policies. Their thresholds are their own; where they have none, one is given here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from mmfw.results import RunDirectory
from verdict.arithmetic import objects_asked_for
from verdict.claim import Claim, Part
from verdict.evidence import Estimate, Evidence, gained
from verdict.predictions import ELIDE, PLAIN, SCAN, scan_alone
from verdict.sensitivity import HINT

BOTH: Final = "elide-and-scan"
KICK: Final = "no-kswapd-kick"
WHOLE: Final = "folio-preserving-backup"
AWARE: Final = "deferred-split-order-aware"


def _contiguity(e: Evidence) -> Iterator[Part]:
    change = e.difference("lifetimes", "success_ratio_order_9", ELIDE)
    yield Part(
        "elision lowers the success of orders 9 and 10 by less than a percentage point",
        f"it changes by {change}",
        change.at_least(-0.01),
    )


def _control(e: Evidence) -> Iterator[Part]:
    for metric, says in (
        ("forward_progress_per_second", "progress"),
        ("xe_bo_evicted_pages", "object pages evicted"),
    ):
        found = e.ratio("control", metric, ELIDE)
        yield Part(f"{says}: within 2% of mainline's", f"{found} of mainline's", found.within(0.98, 1.02))


def _benefit(e: Evidence) -> Iterator[Part]:
    hint = e.difference("copy", "xe_bo_evicted_pages", HINT)
    elide = e.difference("copy", "xe_bo_evicted_pages", ELIDE)
    share = hint.median / elide.median if elide.median else 0.0
    yield Part(
        "in the copy the hint saves less than a fifth of the object pages that elision saves",
        f"hint {hint}, elision {elide} pages, a share of {share:.3f}",
        "undecided"
        if elide.high >= 0
        else "confirmed"
        if hint.low > 0.2 * elide.high
        else "refuted"
        if hint.high < 0.2 * elide.low
        else "undecided",
    )
    none = e.ratio("dcache", "dcache_objects_freed", HINT)
    yield Part(
        "beside dentries and inodes it saves none (1%)", f"{none} of mainline's", none.within(0.99, 1.01)
    )


def _pool(e: Evidence) -> Iterator[Part]:
    for study, where in (("pair", "beside the two buddies"), ("pool-rich", "in the loop with a rich pool")):
        alone = e.difference(study, "success_ratio_order_9", ELIDE)
        before = e.figure(study, "success_ratio_order_9")
        none = ", so that nothing could lower it" if before.high <= 0 else ""
        yield Part(
            f"{where}, elision alone lowers success",
            f"it changes by {alone}; mainline's is {before}{none}",
            alone.at_most(-1e-9),
        )
        with_scan = e.difference(study, "success_ratio_order_9", BOTH)
        yield Part(
            f"{where}, with compaction-scan it is no lower than mainline's",
            f"it changes by {with_scan}",
            with_scan.at_least(0),
        )


def _self_loop(e: Evidence) -> Iterator[Part]:
    plain = e.figure("loop", "xe_bo_evictions_compaction", PLAIN)
    mainline = e.figure("loop", "xe_bo_evictions")
    yield Part(
        "without the distinction compaction evicts objects in use, as many as half of mainline's evictions or more",
        f"{plain}, mainline's {mainline} by whomever",
        "confirmed"
        if plain.low >= 0.5 * mainline.high
        else "refuted"
        if plain.high < 0.5 * mainline.low
        else "undecided",
    )
    told = e.figure("loop", "xe_bo_evictions_compaction", SCAN)
    yield Part("with it compaction evicts none", f"{told}", told.at_most(0))


def _kick(e: Evidence) -> Iterator[Part]:
    left = e.ratio("loop", "xe_bo_evictions_kswapd", KICK)
    yield Part(
        "without the kick at most a fifth of kswapd's evictions are left",
        f"{left} of mainline's {e.figure('loop', 'xe_bo_evictions_kswapd')}; success of orders 9 and 10 "
        f"{e.figure('loop', 'success_ratio_order_9', KICK)}, mainline's {e.figure('loop', 'success_ratio_order_9')}",
        left.at_most(0.2),
    )
    direct = e.figure("loop", "xe_bo_evictions_direct")
    entries = e.of_runs("loop", direct_reclaims)
    yield Part(
        "TTM's requests never reach direct reclaim",
        f"{direct} evictions by direct reclaim, which was entered {entries} times, by whomever",
        "refuted" if direct.low > 0 else "confirmed" if direct.high == entries.high == 0 else "undecided",
    )


def direct_reclaims(run: RunDirectory) -> float:
    """How often direct reclaim was entered (allocstall_* of /proc/vmstat)."""
    return float(sum(n for name, n in run.document.vmstat.items() if name.startswith("allocstall_")))


def _ratio_of(e: Evidence, policy: str, start_s: int, end_s: int) -> Estimate:
    return e.ratio_of_runs("loop", lambda run: gained(run, "xe_bo_evictions", start_s, end_s), policy)


def _decay(e: Evidence) -> Iterator[Part]:
    first = _ratio_of(e, WHOLE, 0, 5)
    yield Part(
        "in the first 5 s evictions are within 30% of mainline's",
        f"{first} of mainline's",
        first.within(0.7, 1.3),
    )
    last = _ratio_of(e, WHOLE, 10, 15)
    yield Part(
        "in the last 5 s they are half of mainline's or fewer",
        f"{last} of mainline's; in the 5 s between, {_ratio_of(e, WHOLE, 5, 10)}",
        last.at_most(0.5),
    )
    blocks = e.difference("loop", "free_blocks_order_9", WHOLE)
    yield Part(
        "free blocks of order 9 reappear: more than under mainline", f"{blocks} more", blocks.at_least(1)
    )


def _splits(e: Evidence) -> Iterator[Part]:
    splits = e.ratio("shatter", "deferred_split_splits", AWARE)
    yield Part("nine tenths fewer folios are split", f"{splits} of mainline's", splits.at_most(0.1))
    success = e.difference("shatter", "success_ratio_order_9", AWARE)
    yield Part(
        "success is unchanged (1 percentage point)", f"it changes by {success}", success.within(-0.01, 0.01)
    )


def _kernel(e: Evidence) -> Iterator[Part]:
    def stalls(run: RunDirectory) -> float:
        rows = (run.document.model_extra or {})["requests"]
        return float(max((row["p99_ns"] for row in rows if row["order"] == 10), default=0))

    def wakes(run: RunDirectory) -> float:
        return float(run.document.kswapd_wakes_by_order.get("10", 0))

    before, after = e.of_runs("loop", stalls), e.of_runs("kernel-7.2", stalls)
    share = e.ratio_of_studies("kernel-7.2", "loop", stalls)
    yield Part(
        "on 7.2 a request for order 10 does not stall: a tenth of 7.1's p99 or less",
        f"p99 {after} ns, on 7.1 {before} ns; {share} of it, seed by seed",
        share.at_most(0.1),
    )
    woken, base = e.of_runs("kernel-7.2", wakes), e.of_runs("loop", wakes)
    left = e.ratio_of_studies("kernel-7.2", "loop", wakes)
    yield Part(
        "kswapd's passes for order 10 stay: within a quarter of 7.1's",
        f"{woken} passes, on 7.1 {base}; {left} of them, seed by seed",
        left.within(0.75, 1.25),
    )


def _walk(e: Evidence) -> Iterator[Part]:
    for seeks, times in ((2, 2.0), (1, 4.0)):
        found = objects_asked_for(seeks)
        yield Part(
            f"a cache of seeks {seeks} is asked for about {times:g} times its size (5%)",
            f"{found:.3f} times",
            "confirmed" if abs(found / times - 1) <= 0.05 else "refuted",
        )
    asked = e.of_runs("dcache", shrinker_calls, ELIDE)
    yield Part(
        "with elision no cache is asked for anything beside high orders",
        f"shrinkers were called {asked} times, under mainline {e.of_runs('dcache', shrinker_calls)}",
        asked.at_most(0),
    )


def shrinker_calls(run: RunDirectory) -> float:
    """Scans that were started, of all shrinkers."""
    return float(sum(each["calls"] for each in (run.document.model_extra or {})["shrinker_calls"].values()))


STATEMENTS: Final = (
    Claim(
        "S1",
        "Under mainline, for slab caches with 20 or more objects a slab of which 5% or more are pinned, shrink_slab raises the "
        "success of order 9 by less than a percentage point over elision.",
        ("lifetimes",),
        _contiguity,
        "One machine; no memory cgroups.",
        "Of slabs of 20 objects and more with 5% and more pinned, one share stands for all: a tenth.",
    ),
    Claim(
        "S2",
        "Elision that asks whether single pages are balanced changes the control by less than 2%.",
        ("control",),
        _control,
        "No memory cgroups; anonymous growth at one pace.",
    ),
    Claim(
        "S3",
        "The hint gives less than a fifth of elision's benefit in the copy, and none beside dentries and inodes.",
        ("copy", "dcache"),
        _benefit,
        "As for P2 and P3.",
        "A benefit is counted in object pages that are not evicted, not in frames.",
    ),
    Claim(
        "S4",
        "Elision without compaction-scan lowers the success of order 9 beside the two buddies and in the loop with a rich pool; "
        "with it, it is no lower than mainline's.",
        ("pair", "pool-rich"),
        _pool,
        "The pool's fill is an assumption.",
        "Beside the two buddies mainline never succeeds, so that elision cannot lower its success there: that part says nothing "
        "about elision.",
    ),
    Claim(
        "S5",
        "compaction-scan without the opportunistic flag reproduces the self-loop; with it, compaction evicts no object in use for "
        "requests that may fail.",
        ("loop",),
        _self_loop,
        "As for P7. Before, the threshold of the first part was held against all evictions, those of kswapd included.",
        "A loop is evictions that bring on requests that bring on evictions; evictions are counted, and not what brings them on. "
        "shrink_slab runs beside the scans in this study.",
        beside=scan_alone,
    ),
    Claim(
        "S6",
        "no-kswapd-kick alone removes 80% or more of kswapd's evictions in the loop, and TTM's requests never reach direct reclaim.",
        ("loop",),
        _kick,
        "Watermark boosts come from fallbacks that steal pageblocks; how many there are hangs on how memory was polluted. Without "
        "them: see the loop with vm.watermark_boost_factor = 0 below.",
        "That requests do not reach direct reclaim is read from what direct reclaim evicts and how often anybody enters it, in the "
        "loop, on one kernel. That TTM of 6.1 does reach it, and what costly requests of the page cache lose there, is not measured.",
    ),
    Claim(
        "S7",
        "folio-preserving-backup alone leaves evictions within 30% of mainline's at first, but blocks of order 9 reappear, so "
        "that the loop decays.",
        ("loop",),
        _decay,
        "Copies need reserves; a restore reads 2^page-cluster swap slots at once, but pages that are read ahead take no memory.",
        "In the first 5 s objects are still being made; they are few of mainline's evictions.",
    ),
    Claim(
        "S8",
        "deferred-split-order-aware: splits drop by more than 90% in the scenario, success unchanged.",
        ("shatter",),
        _splits,
        "Half of each folio is unmapped, page by page; in its last phase single pages are asked for, and there folios are split.",
        "Splits and success are those of the whole run, not of its order-9 phase.",
    ),
    Claim(
        "S9",
        "7.2's beneficial order alone removes order 10's direct stalls but leaves kswapd's wakes for order 10 as they were.",
        ("loop", "kernel-7.2"),
        _kernel,
        "Only what core/mmfw/kernels.py lists differs between the two kernels here.",
        "Passes of kswapd stand for its wakes, of which those that come during a pass are folded into one; and clients that wait "
        "less ask more often, so that the load is not the same on both kernels.",
    ),
    Claim(
        "S10",
        "One failed order-9 walk of kswapd from priority 12 to 1 asks a cache of seeks 2 for about twice its size and one of seeks 1 "
        "for four times; elision makes it none.",
        ("dcache",),
        _walk,
        "Arithmetic of do_shrink_slab(), which is held against a real 6.1.192; nothing is freed meanwhile.",
    ),
)
