"""Which policies are compared, written in one way, and where they change nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mmfw.discovery import discover, file_record, only_record, summary_of
from mmfw.errors import InputError
from mmfw.offers import PluginInfo
from mmfw.plugins import check_plugin
from mmfw.policies import GROUP, MAINLINE, Policy, parse_policy
from mmfw.policy_sets import find_policy_sets
from mmfw.registry import LoadedPlugins
from mmfw.system import plugin_params

ALL = "all"


@dataclass(frozen=True, slots=True)
class Composition:
    """One alternative.

    Attributes
    ----------
    name : str
        As it was asked for.
    policies : tuple of Policy
        By name; options that say their default are left out.
    description : str
        One line; empty for what was composed on the command line.
    """

    name: str
    policies: tuple[Policy, ...]
    description: str = ""


@dataclass(frozen=True, slots=True)
class Reduced:
    """A composition in a scenario.

    Attributes
    ----------
    policies : tuple of Policy
        Those that may change something there.
    why : str
        Which were left out, and why; empty if none was.
    """

    policies: tuple[Policy, ...]
    why: str


class PolicyBook:
    """Looks policies up, each imported once."""

    def __init__(self) -> None:
        self._infos: dict[str, PluginInfo] = {}
        self._written: dict[Policy, Policy] = {}

    def compositions(self, asked: Iterable[str]) -> tuple[tuple[Composition, ...], tuple[str, ...]]:
        """What was asked for, mainline first, each once.

        Returns
        -------
        compositions : tuple of Composition
            To compare.
        passed_over : tuple of str
            Why a set that ``all`` would mean is not among them.

        Raises
        ------
        InputError
            A name or an option is wrong.
        PluginError
            A policy cannot be imported.
        """
        found = {MAINLINE: Composition(MAINLINE, (), "the kernel as it is")}
        passed_over = []
        sets = find_policy_sets()
        summaries = {r.name: summary_of(r) for r in discover() if r.group == GROUP and r.name != MAINLINE}
        for each in asked:
            for name in (*summaries, *sets) if each == ALL else (each,):
                description = sets[name].description if name in sets else summaries.get(name, "")
                try:
                    chosen = parse_policy(name)
                except InputError as fault:
                    if each != ALL:
                        raise
                    passed_over.append(str(fault))
                    continue
                policies = tuple(sorted(map(self.written, chosen), key=lambda policy: policy.name))
                label = MAINLINE if not policies else name
                found.setdefault(label, Composition(label, policies, description))
        return tuple(found.values()), tuple(passed_over)

    def info(self, name: str) -> PluginInfo:
        """What an installed policy's plugin says of itself."""
        return self._info(Policy(name))

    def _loaded(self, policy: Policy) -> LoadedPlugins:
        if policy.file:
            return check_plugin(file_record(policy.file))
        return check_plugin(
            only_record(policy.name, [record for record in discover() if record.group == GROUP])
        )

    def _info(self, policy: Policy) -> PluginInfo:
        key = policy.file or policy.name
        if key not in self._infos:
            # A plugin comes after what it needs.
            self._infos[key] = self._loaded(policy).plugins[-1].info
        return self._infos[key]

    def written(self, policy: Policy) -> Policy:
        """A policy with its options by name, as its parameters read them, without those at their default."""
        if policy not in self._written:
            name = self._info(policy).name
            options: dict[str, object] = {}
            if policy.options:
                values = plugin_params(self._loaded(policy), {name: dict(policy.options)})
                options = values[name].model_dump(mode="json", exclude_defaults=True)
            self._written[policy] = Policy(name, tuple(sorted(options.items())), policy.file)
        return self._written[policy]

    def reduce(self, composition: Composition, plugins: Iterable[str]) -> Reduced:
        """Leave out what changes nothing in a run.

        Parameters
        ----------
        composition : Composition
            What was asked for.
        plugins : iterable of str
            What the scenario loads.
        """
        there = {*plugins, *(policy.name for policy in composition.policies)}
        kept, whys = [], []
        for policy in composition.policies:
            info = self._info(policy)
            absent = [name for name in info.needs if name not in there]
            if absent or (info.acts_on and not there.intersection(info.acts_on)):
                wanted = ", ".join(absent or info.acts_on)
                whys.append(f"{policy.name} acts only on {wanted}, which the scenario does not load")
            else:
                kept.append(policy)
        return Reduced(tuple(kept), "; ".join(whys))
