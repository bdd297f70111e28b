"""``--policy``: what it says, and that a run with it is a run of the same scenario."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

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
    with pytest.raises(InputError, match=r"params\.no-slab"):
        run(request("no-slab:key=1"))
