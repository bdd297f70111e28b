"""Policy sets: found without importing their distribution, and a name that works wherever a policy's does."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mmfw.errors import InputError
from mmfw.policies import Policy, parse_policy, policy_text
from mmfw.policy_sets import find_policy_sets

pytestmark = pytest.mark.usefixtures("installed")

SETS = """
[sets.one]
policies = "no-slab"
description = "no shrinkers"

[sets.several]
policies = "one+always-slab:a=3"
description = "a set of a set and a policy"

[sets.round]
policies = "about"
description = "stands for itself"

[sets.about]
policies = "round"
description = "and so does this"

[sets.absent]
policies = "no-slab+acme-policy+other-policy"
description = "needs what is not there"

[distributions]
acme-policy = "acme-mmfw"
"""


@pytest.fixture
def ship(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Install a distribution that ships sets."""

    def install(text: str, package: str = "mmfw_test_sets") -> Path:
        folder, info = tmp_path / package, tmp_path / f"{package}-1.0.dist-info"
        folder.mkdir()
        info.mkdir()
        (folder / "__init__.py").write_text("raise RuntimeError('must not be imported')\n")
        (folder / "policy-sets.toml").write_text(text)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[mmfw.policy_sets]\nsets = {package}\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        return folder / "policy-sets.toml"

    return install


def test_a_set_stands_for_its_policies(ship: Callable[..., Path]) -> None:
    ship(SETS)
    both = (Policy("no-slab"), Policy("always-slab", (("a", 3),)))
    assert parse_policy("several") == both
    assert parse_policy("several+one") == both
    assert parse_policy("one+always-slab:a=3") == both
    assert policy_text(parse_policy("always-slab:b=true:a=no+one")) == "always-slab:a=no:b=true+no-slab"
    assert policy_text(()) == "mainline"
    assert "mmfw_test_sets" not in sys.modules
    assert find_policy_sets()["several"].origin == "mmfw_test_sets"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("several+always-slab", "both always-slab:a=3 (of set several) and always-slab (as given)"),
        ("several:a=4", "several is a set, which takes no options; write out what it stands for: one+always"),
        ("round", "policy set 'round' stands for itself"),
        ("acme-policy", "no plugin 'acme-policy'; known: "),
        ("severl", "no plugin 'severl'; did you mean 'several'?"),
        (
            "absent",
            "policy set 'absent' needs policy 'acme-policy', which is not installed: pip install acme-mmfw",
        ),
    ],
)
def test_what_a_set_cannot_do_is_said(ship: Callable[..., Path], text: str, said: str) -> None:
    ship(SETS)
    with pytest.raises(InputError) as fault:
        parse_policy(text)
    assert said in str(fault.value)


def test_a_policy_is_looked_for_in_the_distribution_named_after_it(ship: Callable[..., Path]) -> None:
    ship('[sets.x]\npolicies = "other-policy"\ndescription = "x"\n')
    with pytest.raises(InputError, match=r"not installed: pip install mmfw-policy-other-policy$"):
        parse_policy("x")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sets = 1", "sets: Input should be"),
        ('[sets.x]\npolicies = "no-slab"\n', "sets.x.description: Field required"),
        ('[sets.x]\npolicies = "a"\ndescription = "b"\npolices = "c"\n', "sets.x.polices: Extra inputs"),
        ('[sets."a+b"]\npolicies = "a"\ndescription = "b"\n', "sets.a+b"),
        ("[sets", "Expected"),
    ],
)
def test_a_wrong_file_is_named(ship: Callable[..., Path], text: str, said: str) -> None:
    file = ship(text)
    with pytest.raises(InputError) as fault:
        parse_policy("x")
    assert str(fault.value).startswith(f"{file}: policy sets of mmfw_test_sets cannot be read: ")
    assert said in str(fault.value)
    assert parse_policy("no-slab") == (Policy("no-slab"),)


def test_a_set_shipped_twice_is_refused(ship: Callable[..., Path]) -> None:
    ship(SETS)
    ship(SETS, "mmfw_test_sets2")
    with pytest.raises(
        InputError, match="policy set 'one' is shipped twice, by mmfw_test_sets and mmfw_test_sets2"
    ):
        parse_policy("one")


def test_the_sets_of_this_repository_can_be_read_and_composed() -> None:
    sets = find_policy_sets()
    assert {"chinner", "both", "brost-incremental", "stopgap-xe"} <= sets.keys()
    chinner = policy_text(parse_policy("chinner"))
    assert chinner == "compaction-scan+elide-shrink-slab+no-kswapd-kick"
    for name in sets:
        assert parse_policy(name)
    assert {p.name for p in parse_policy("both")} > {p.name for p in parse_policy("chinner")}
