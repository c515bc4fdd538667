"""The policy's text: each declared pair is in it, nobody else. And what Xen enforces, against the same channels."""

from __future__ import annotations

import re
from itertools import product

import pytest

from appliance.assembly.load import ASSEMBLIES, load
from appliance.assembly.model import Domain, ValidatedAssembly
from appliance.xsm.labels import building_label, kind, label
from appliance.xsm.policy import from_dom0, policy
from appliance.xsm.state import DOM0, UnknownLabel, differences


@pytest.fixture(params=sorted(path.name for path in ASSEMBLIES.glob("*.toml")))
def assembly(request: pytest.FixtureRequest) -> ValidatedAssembly:
    return load(ASSEMBLIES / request.param)


def _maps(assembly: ValidatedAssembly) -> set[tuple[str, str]]:
    return {(channel.client.domain, channel.server.domain) for channel in assembly.wired}


def test_the_client_of_each_channel_and_nobody_else_maps_grants(assembly: ValidatedAssembly) -> None:
    rules = set(re.findall(r"^allow septum_(\w+)_t septum_(\w+)_t:grant ", policy(assembly), re.MULTILINE))
    assert rules == _maps(assembly)


def test_events_are_for_the_two_ends_of_a_channel_and_dom0(assembly: ValidatedAssembly) -> None:
    rules = re.findall(r"^create_channel\((\w+), (\w+), (\w+)\)", policy(assembly), re.MULTILINE)
    between = {(one, other) for one, other, _ in rules if "dom0_t" not in (one, other)}
    joined = _maps(assembly) | {(server, client) for client, server in _maps(assembly)}
    assert between == {(kind(one), kind(other)) for one, other in joined}
    assert all(channel == f"{one}_channel" for one, _, channel in rules)


def test_who_is_called_from_dom0_is_said(assembly: ValidatedAssembly) -> None:
    said = set(re.findall(r"^# (\S+) calls septum_(\w+)_t$", policy(assembly), re.MULTILINE))
    tools = {(str(one.client), one.server.domain) for one in assembly.operated}
    disks = {("dom0.disk", domain.name) for domain in assembly.domains if domain.role.component == "store"}
    assert said == tools | disks


def test_every_undeclared_pair_is_a_wall(assembly: ValidatedAssembly) -> None:
    walls = re.findall(r"^neverallow septum_(\w+?)_t \{ ([\w ]+) \}:grant \*;", policy(assembly), re.MULTILINE)
    walled = {(one, other.removeprefix("septum_")[:-2]) for one, others in walls for other in others.split()}
    names = [domain.name for domain in assembly.domains]
    assert walled == set(product(names, repeat=2)) - _maps(assembly)


def test_only_an_unlocked_policy_may_be_changed(assembly: ValidatedAssembly) -> None:
    line = "neverallow * security_t:security { load_policy setenforce setbool };"
    assert line in policy(assembly)
    assert line not in policy(assembly, locked=False)


def test_a_running_domain_has_another_label_than_one_being_built() -> None:
    assert label("keymgr") == "system_u:system_r:septum_keymgr_t"
    assert building_label("keymgr") == "system_u:system_r:septum_keymgr_t_building"


def _has_network(domain: Domain) -> bool:
    return not {"tun", "udp4", "management"}.isdisjoint(domain.role.devices)


class _Enforced:
    """A Xen that enforces exactly what the channels say, but for what a test changes."""

    def __init__(self, assembly: ValidatedAssembly) -> None:
        self.rules: dict[tuple[str, str, str], set[str]] = {}
        for client, server in _maps(assembly):
            self.rules[label(client), label(server), "grant"] = {"map_read", "map_write", "unmap"}
            for one, other in ((client, server), (server, client)):
                self.rules[f"system_u:object_r:{kind(one)}_channel", label(other), "event"] = {"bind"}
        for domain in assembly.domains:
            self.rules[DOM0, building_label(domain.name), "mmu"] = {"map_read", "map_write"}
            copy = {"copy"} if _has_network(domain) else set()
            self.rules[DOM0, label(domain.name), "grant"] = {"map_read", "map_write", "unmap"} | copy
            self.rules[label(domain.name), DOM0, "grant"] = copy
            # Of every domain, for its console and the xenstore
            self.rules["system_u:object_r:dom0_t_channel", label(domain.name), "event"] = {"bind"}
            self.rules[f"system_u:object_r:{kind(domain.name)}_channel", DOM0, "event"] = {"bind"}

    def allowed(self, source: str, target: str, klass: str) -> frozenset[str]:
        return frozenset(self.rules.get((source, target, klass), ()))


def test_a_policy_that_is_what_the_channels_say_has_no_differences(assembly: ValidatedAssembly) -> None:
    assert list(differences(assembly, _Enforced(assembly).allowed)) == []


def _first(assembly: ValidatedAssembly) -> tuple[str, str]:
    return min(_maps(assembly))


def test_each_permission_too_many_or_too_few_is_one_difference(assembly: ValidatedAssembly) -> None:
    client, server = _first(assembly)
    changes: list[tuple[tuple[str, str, str], set[str]]] = [
        ((label(client), label(server), "grant"), {"map_read", "map_write", "unmap", "copy"}),
        ((label(client), label(server), "grant"), {"map_read"}),
        ((f"system_u:object_r:{kind(client)}_channel", label(server), "event"), set()),
        ((label(client), label(server), "mmu"), {"map_read"}),
        ((DOM0, label(server), "mmu"), {"map_read"}),
        ((DOM0, building_label(server), "mmu"), set()),
        ((DOM0, "system_u:system_r:security_t", "security"), {"setenforce"}),
    ]
    for domain in assembly.domains:
        copy = set() if _has_network(domain) else {"copy"}  # none of its packets would get out, or it has none
        changes += [
            ((label(domain.name), DOM0, "grant"), copy),
            ((DOM0, label(domain.name), "grant"), {"map_read", "map_write", "unmap"} | copy),
        ]
    for _, called in from_dom0(assembly):
        events = f"system_u:object_r:{kind(called)}_channel"
        dom0_events = "system_u:object_r:dom0_t_channel"
        changes += [((events, DOM0, "event"), set()), ((dom0_events, label(called), "event"), set())]
    for rule, permissions in changes:
        xen = _Enforced(assembly)
        xen.rules[rule] = permissions
        assert len(list(differences(assembly, xen.allowed))) == 1, rule


def test_another_boxs_policy_is_told_from_ours(assembly: ValidatedAssembly) -> None:
    def allowed(source: str, target: str, klass: str) -> frozenset[str]:
        raise UnknownLabel(source)

    (said,) = differences(assembly, allowed)
    assert "is not that of" in said
