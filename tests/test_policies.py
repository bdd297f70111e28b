"""``--policy``: what it says, and that a run with it is a run of the same scenario."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mmfw.compare.plan import make_plan
from mmfw.compare.request import CompareRequest
from mmfw.errors import InputError
from mmfw.policies import Policy, parse_policy
from mmfw.run import RunRequest, run

TOY = Path(__file__).parent / "data" / "toy"

pytestmark = pytest.mark.usefixtures("installed")


def request(policy: str | None = None) -> RunRequest:
    base = RunRequest(scenario=str(TOY / "toy-loop.toml"), plugin_files=(TOY / "toy.py",), duration="300ms")
    return replace(base, policies=parse_policy(policy))


def test_policies_compose_by_plus_and_take_options_behind_colons() -> None:
    assert parse_policy("no_slab+always-slab:a=3:b=x") == (
        Policy("no-slab"),
        Policy("always-slab", (("a", 3), ("b", "x"))),
    )
    assert str(parse_policy("always-slab:a=3:b=x")[0]) == "always-slab:a=3:b=x"


@pytest.mark.parametrize("text", [None, "mainline"])
def test_mainline_is_no_policy(text: str | None) -> None:
    assert parse_policy(text) == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no-slab,always-slab", "a comma lists alternatives, and a run has one; compose policies with +"),
        ("no-slab+", "an empty name; write names with + between"),
        ("", "an empty name"),
        ("no-slab+no_slab", "'no-slab' is named twice"),
        ("mainline+no-slab", "mainline is the kernel without a policy; it stands alone"),
        ("mainline:a=1", "mainline is the kernel without a policy; it stands alone"),
        ("no-slab:a", "option 'a' has no value; write no-slab:key=value"),
        ("no-slob", "no plugin 'no-slob'; did you mean 'no-slab'?"),
        ("pool", "no plugin 'pool'"),
    ],
)
def test_what_is_no_policy_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError) as fault:
        parse_policy(text)
    assert message in str(fault.value)


def test_a_policy_changes_what_it_decides_and_is_named() -> None:
    mainline, elided = run(request()), run(request("no-slab"))
    assert mainline.policies == ()
    assert elided.policies == ("no-slab",)
    assert mainline.metrics["toy_evictions"] > 0
    assert elided.metrics["toy_evictions"] == 0
    assert elided.digest != mainline.digest


def test_mainline_by_name_has_the_digest_of_no_policy() -> None:
    assert run(request("mainline")).digest == run(request()).digest


def test_an_option_of_a_policy_that_has_none_is_refused() -> None:
    with pytest.raises(InputError, match=r"^params\.no-slab: plugin no-slab takes no parameters$"):
        run(request("no-slab:key=1"))


QUIET = """
from mmfw import WakePlan, hookimpl


@hookimpl
def mmfw_plan_wakeup(wake):
    return WakePlan(kswapd_order=None) if wake.order else None
"""


def test_a_prototype_is_a_policy_by_its_path(tmp_path):
    file = tmp_path / "quiet.py"
    file.write_text(QUIET)
    (policy,) = parse_policy(f"{file}")
    assert (policy.name, str(policy)) == ("quiet", str(file))
    request = RunRequest(scenario="ttm-order8-pair", short=True, policies=(policy,))
    as_policy = run(request)
    as_file = run(RunRequest(scenario="ttm-order8-pair", short=True, plugin_files=(file,)))
    assert as_policy.digest == as_file.digest
    assert as_policy.digest != run(RunRequest(scenario="ttm-order8-pair", short=True)).digest
    assert as_policy.policies == (str(file),)


def test_a_prototype_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such plugin file"):
        parse_policy(f"{tmp_path / 'nothing.py'}+elide-shrink-slab")


def test_a_study_whose_prototype_was_edited_makes_its_runs_again(tmp_path):
    file = tmp_path / "quiet.py"
    file.write_text(QUIET)

    def inputs():
        request = CompareRequest(("object-loop",), (str(file),), 1, tmp_path / "study", duration="200ms")
        plan, _ = make_plan(request)
        return {each.policies: each.inputs for each in plan.runs}

    before = inputs()
    file.write_text(QUIET.replace("if wake.order", "if wake.order > 3"))
    after = inputs()
    assert before["mainline"] == after["mainline"]
    assert before[str(file)] != after[str(file)]
