"""Each validator is broken by exactly one change to the vpn assembly, and refuses it in the right place."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import re
import shutil
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.assembly import catalogue, keyfiles, model, schemas
from appliance.assembly import draft as draft_module
from appliance.assembly.findings import AssemblyError, Finding
from appliance.assembly.load import ASSEMBLIES, VPN, load
from appliance.assembly.model import DEVICES, LABELS, Channel, End, ValidatedAssembly
from appliance.assembly.settings import resolved, to_json
from appliance.assembly.validators import VALIDATORS, manual
from appliance.guest.secret import Secret
from appliance.vchan.generate import schema_names
from components.filter.model import Action, Side, Tracking
from components.filter.ruleset import decode

TEXT = VPN.read_text()
RULES = (VPN.parent / "vpn.rules").read_text()
ROOT = VPN.parents[1]
PRIVATE = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="
PUBLIC = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw="


@pytest.fixture(autouse=True)
def rules_beside(tmp_path: Path) -> None:
    """The file that assemblies name stands beside those that the tests write."""
    shutil.copy(VPN.parent / "vpn.rules", tmp_path)


def findings(text: str, folder: Path) -> list[Finding]:
    file = folder / "box.toml"
    file.write_text(text)
    try:
        load(file)
    except AssemblyError as error:
        assert error.findings
        return error.findings
    return []


def change(old: str, new: str) -> str:
    assert TEXT.count(old) == 1, old
    return TEXT.replace(old, new)


def line_of(text: str, part: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if part in line)


def test_the_vpn_assembly() -> None:
    box = load(VPN)
    assert [domain.name for domain in box.domains] == list(tomllib.loads(TEXT)["domains"])
    assert Channel(End("red", "plain_out"), End("filter", "red_in"), "packets") in box.channels
    assert len(box.channels) == 24
    assert box.network is None  # a plan: a wg-quick file brings the network
    assert box.domain("encrypt").role.component == "crypto"
    assert box.domain("encrypt").role.transforms == {"RED->BLACK"}
    (established, from_red) = decode(box.domain("filter").settings["ruleset"]).rules  # type: ignore[arg-type]
    assert (established.tracking, established.action) == (Tracking.ESTABLISHED | Tracking.RELATED, Action.ALLOW)
    assert (from_red.sides, from_red.action, from_red.line) == (
        Side.RED,
        Action.ALLOW,
        line_of(RULES, "allow from red"),
    )
    assert [str(c.server) for c in box.channels_of("rng")] == ["rng.keys", "rng.nonces", "log.records"]
    with pytest.raises(KeyError):
        box.domain("nobody")


def test_only_the_loader_makes_one() -> None:
    box = load(VPN)
    fields = {field.name: getattr(box, field.name) for field in dataclasses.fields(box)}
    for proof in ({}, {"proof": None}, {"proof": object()}, {"proof": True}):
        with pytest.raises(TypeError, match="comes only from"):
            ValidatedAssembly(**fields, **proof)
    with pytest.raises((TypeError, ValueError)):
        dataclasses.replace(box, name="other")
    with pytest.raises(dataclasses.FrozenInstanceError):
        box.name = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        box.domains[0].settings["x"] = 1  # type: ignore[index]
    with pytest.raises(TypeError):
        pickle.dumps(box)


# One change of the text for each rule that the assembly alone can break, and the line that is to blame for it.
BREAKS: dict[str, list[tuple[str, str, str]]] = {
    "well-formed": [("[channels]", "[channels", "[channels"), ('name = "vpn"', 'name = "vpn', 'name = "vpn')],
    "keys": [
        ('summary = "An', 'sumary = "An', "sumary"),
        ("version = 1", "", ""),
        ("version = 1", 'version = "1"', "version"),
        ("version = 1", "version = true", "version"),
        ('rng = { component = "rng" }', 'rng = "rng"', "rng ="),
        ('rng = { component = "rng" }', 'rng = { component = "rng", memory = 5 }', "rng ="),
        ('rng = { component = "rng" }', 'rng = { component = "rng", memory_mib = 1 }', "rng ="),
        ("[settings.filter]", "[limits]\nchannels_per_domain = 65\n[settings.filter]", "channels_per_domain"),
    ],
    "secrets": [
        ("[settings.filter]", f'[settings.keymgr]\nprivate_key = "{PRIVATE}"\n[settings.filter]', "private_key"),
        ("[settings.filter]", '[settings.keymgr]\nprivate_key_file = "none"\n[settings.filter]', "private_key"),
        ("[settings.filter]", f'[settings.keymgr]\nprivate_key_file = "{PRIVATE}"\n[settings.filter]', "private_key"),
        ("[settings.filter]", '[settings.keymgr]\nprivate_key_file = "."\n[settings.filter]', "private_key"),
        ("[settings.filter]", '[settings.keymgr]\nprivate_key_file = "box.toml"\n[settings.filter]', "private_key"),
        ("[settings.filter]", "[settings.keymgr]\nprivate_key_file = 1\n[settings.filter]", "private_key"),
        ("[settings.filter]", '[[settings.keymgr.peers]]\npreshared_key = "x"\n[settings.filter]', "preshared_key"),
    ],
    "version": [("version = 1", "version = 2", "version")],
    "names": [('name = "vpn"', 'name = "../vpn"', "name"), ('name = "vpn"', f'name = "{"a" * 16}"', "name"),
    ],
    "components": [
        ('store = { component = "store" }', 'store = { component = "sotre" }', "sotre"),
        ('component = "crypto", role = "encrypt"', 'component = "crypto"', "encrypt ="),
        ('component = "crypto", role = "encrypt"', 'component = "crypto", role = "encript"', "encript"),
    ],
    "ends": [
        ('"rng.log" = "log.records"', '"rng.log" = "log.record"', "rng.log"),
        ('"rng.log" = "log.records"', '"rgn.log" = "log.records"\n"rng.log" = "log.records"', "rgn.log"),
        ('"rng.log" = "log.records"', '"rng.log" = 3', "rng.log"),
        ('"rng.log" = "log.records"', 'rng.log = "log.records"', "rng.log"),
        ('"rng.log" = "log.records"', '"rng.log" = "log"', "rng.log"),
        ('"operator.filter" = "filter.control"', '"operator.keys" = "filter.control"', "operator.keys"),
        ('"operator.filter" = "filter.control"', '"operator.filter" = "filter.kontrol"', "filter.kontrol"),
    ],
    "joined-once": [
        ('"rng.log" = "log.records"', "", "rng = "),
        ('"black.handshakes_arrived" = "keymgr.handshakes_in"', "", "keymgr = "),
    ],
    "direction": [('"keymgr.blobs" = "store.blobs"', '"store.blobs" = "keymgr.blobs"', "store.blobs")],
    "schema": [('= "keymgr.encrypt_reports"', '= "keymgr.decrypt_reports"', "encrypt.reports")],
    "one-transform": [],
    "limits": [
        ("[settings.filter]", "[limits]\nmemory_mib = 2114\n[settings.filter]", "memory_mib"),
        ("[settings.filter]", "[limits]\nchannels_per_domain = 8\n[settings.filter]", "keymgr = "),
        ("[settings.filter]", "[limits]\nevents_per_domain = 17\n[settings.filter]", "keymgr = "),
        ("[settings.filter]", "[limits]\ngrants_per_domain = 520\n[settings.filter]", "filter = "),
    ],
    "settings": [
        ('rules = "vpn.rules"', 'rules = "vpn.rules"\nruels = 1', "ruels"),
        ('rules = "vpn.rules"', 'rules = "vpn.rules"\nshards = inf', "[settings.filter]"),
        ("[settings.filter]", "[settings.filtre]", "[settings.filtre]"),
        ("[settings.filter]", "[settings.decrypt]\nx = 1\n[settings.filter]", "[settings.decrypt]"),
        ("[settings.filter]", '[settings.keymgr]\npeers = []\n[settings.filter]', "[settings.keymgr]"),
        ("[settings.filter]", "[settings.red]\nmtu = 1\n[settings.filter]", "mtu"),
    ],
    "rules": [
        ('rules = "vpn.rules"', "", "[settings.filter]"),
        ('rules = "vpn.rules"', "rules = 3", "rules = 3"),
        ('rules = "vpn.rules"', 'rules = ""', 'rules = ""'),
        ('rules = "vpn.rules"', "ruleset = {}", "ruleset"),
    ],
    "network": [],
}  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "old", "new", "blamed"),
    [pytest.param(rule, *case, id=f"{rule}-{i}") for rule, cases in BREAKS.items() for i, case in enumerate(cases)],
)
def test_one_change_breaks_one_rule(rule: str, old: str, new: str, blamed: str, tmp_path: Path) -> None:
    text = change(old, new)
    found = findings(text, tmp_path)
    assert {finding.validator for finding in found} >= {rule}
    # A rewired channel leaves a port unjoined or joined twice as well; nothing else may complain with it
    assert {finding.validator for finding in found} <= {rule, "joined-once"}, [str(finding) for finding in found]
    first = next(finding for finding in found if finding.validator == rule)
    assert first.line == (line_of(text, blamed) if blamed else 0)
    assert first.file == tmp_path / "box.toml"
    assert str(first).startswith(f"{tmp_path}/box.toml{f':{first.line}' if blamed else ''}: ")
    assert PRIVATE[:20] not in "".join(map(str, found))


def test_hints(tmp_path: Path) -> None:
    assert "did you mean 'store'" in str(findings(change('component = "store"', 'component = "sotre"'), tmp_path)[0])
    assert "did you mean 'summary'" in str(findings(change('summary = "An', 'sumary = "An'), tmp_path)[0])
    assert "known: encrypt, decrypt" in str(findings(change(', role = "encrypt"', ""), tmp_path)[0])


def test_a_port_can_be_joined_too_often(tmp_path: Path) -> None:
    """A second red: each port of the filter is then joined twice, and takes one; and the TUN would have two holders."""
    text = change(
        'filter = { component = "filter" }',
        'filter = { component = "filter" }\nred2 = { component = "net", role = "red" }',
    )
    text = text.replace(
        '"red.plain_out" = "filter.red_in"',
        '"red.plain_out" = "filter.red_in"\n"red2.plain_out" = "filter.red_in"\n"red2.log" = "log.records"',
    )
    found = findings(text, tmp_path)
    assert {(finding.validator, finding.line) for finding in found} == {
        ("joined-once", line_of(text, '"red2.plain_out"')),
        ("joined-once", line_of(text, "red2 =")),
        ("devices", line_of(text, "red = ")),
    }
    assert any("filter.red_in is joined 2 times; it can be joined once" in finding.detail for finding in found)
    assert any("red2.plain_in is not joined" in finding.detail for finding in found)


def test_many_has_its_bound(tmp_path: Path) -> None:
    """log.records takes 32 channels: twenty-four more domains that log make it 33 with one more."""
    extra = "".join(f'log{i} = {{ component = "store" }}\n' for i in range(25))
    channels = "".join(f'"log{i}.log" = "log.records"\n' for i in range(25))
    text = change("[channels]", "[channels]\n" + channels).replace("[domains]\n", "[domains]\n" + extra)
    found = findings(text, tmp_path)
    assert "log.records is joined 33 times; it can be joined at most 32 times" in "\n".join(map(str, found))


# Where there are replicas


def pairs(count: int) -> str:
    """The vpn assembly with ``count`` pairs of crypto domains, and the limits that eight need."""
    lines = []
    for line in TEXT.splitlines():
        own = re.match(r'"?(encrypt|decrypt)\b', line)
        far = re.search(r'= "(encrypt|decrypt)(\.\w+)"', line)
        if own:
            lines += [line.replace(own[1], f"{own[1]}{number}", 1) for number in range(1, count + 1)]
        elif far:
            members = ", ".join(f'"{far[1]}{number}{far[2]}"' for number in range(1, count + 1))
            lines.append(f"{line[: far.start()]}= [{members}]")
        else:
            lines.append(line)
    return "\n".join([*lines, "[limits]", f"memory_mib = {1700 + 700 * count}", "grants_per_domain = 2392", ""])


TWO = pairs(2)


def test_the_assembly_of_two_pairs(tmp_path: Path) -> None:
    box = load(ASSEMBLIES / "vpn-2.toml")
    (tmp_path / "two.toml").write_text(TWO)
    assert box.channels == load(tmp_path / "two.toml").channels
    assert {domain.name: domain.role.name for domain in box.domains} == {
        **{domain.name: domain.role.name for domain in load(VPN).domains if domain.role.component != "crypto"},
        **{f"{side}{number}": side for side in ("encrypt", "decrypt") for number in (1, 2)},
    }


@pytest.mark.parametrize("count", [1, 3, 8])
def test_up_to_eight_pairs_fit(count: int, tmp_path: Path) -> None:
    assert not findings(pairs(count), tmp_path)


def test_nine_pairs_do_not_fit(tmp_path: Path) -> None:
    assert "joined 9 times; it can be joined at most 8 times" in "".join(map(str, findings(pairs(9), tmp_path)))


REPLICAS: dict[str, list[tuple[str, str, str, str]]] = {
    "replicas": [
        (
            '"encrypt2.reports" = "keymgr.encrypt_reports"',
            '"encrypt2.reports" = "keymgr.decrypt_reports"',
            "encrypt2 = ",
            "encrypt2.reports is joined to keymgr.decrypt_reports, encrypt1.reports to keymgr.encrypt_reports",
        ),
    ],
    "numbers": [
        (
            '["encrypt1.orders", "encrypt2.orders"]',
            '["encrypt2.orders", "encrypt1.orders"]',
            "keymgr.encrypt_orders",
            "encrypt2 stands at keymgr.encrypt_orders where encrypt1 stands at filter.tunnel_out",
        ),
        (
            '["decrypt1.orders", "decrypt2.orders"]',
            '["decrypt2.orders", "decrypt1.orders"]',
            "keymgr.decrypt_orders",
            "decrypt2 stands at keymgr.decrypt_orders where decrypt1 stands at black.arrived",
        ),
        (
            '"decrypt1.plain" = "filter.tunnel_in"\n"decrypt2.plain" = "filter.tunnel_in"',
            '"decrypt2.plain" = "filter.tunnel_in"\n"decrypt1.plain" = "filter.tunnel_in"',
            '"decrypt2.plain"',
            "decrypt2 stands at filter.tunnel_in where decrypt1 stands at black.arrived",
        ),
    ],
}


@pytest.mark.parametrize(
    ("rule", "old", "new", "blamed", "said"),
    [pytest.param(rule, *case, id=f"{rule}-{i}") for rule, cases in REPLICAS.items() for i, case in enumerate(cases)],
)
def test_replicas_that_are_none(rule: str, old: str, new: str, blamed: str, said: str, tmp_path: Path) -> None:
    assert TWO.count(old) == 1, old
    text = TWO.replace(old, new)
    found = [finding for finding in findings(text, tmp_path) if finding.validator == rule]
    assert [(finding.line, finding.detail) for finding in found] == [(line_of(text, blamed), said)]


def test_sets_of_two_sizes(tmp_path: Path) -> None:
    """Two encrypts, and one decrypt: the second encrypt's peers would have nobody to receive."""
    text = "".join(line for line in TWO.splitlines(keepends=True) if not re.match(r'"?decrypt2', line))
    text = re.sub(r', "decrypt2\.\w+"', "", text)
    found = findings(text, tmp_path)
    assert {finding.validator for finding in found} == {"even-sets"}
    assert {finding.line for finding in found} == {line_of(text, '"black.arr'), line_of(text, '"keymgr.decrypt_orders')}
    assert "is spread over 1 domains, filter.tunnel_out over 2" in found[0].detail


def test_the_filter_is_told_whose_prefixes_are_whose(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(PRIVATE)
    peers = [["10.1.0.0/16", "fd00:1::/64"], ["10.2.0.0/16"], [], ["10.4.0.1/16"]]
    own = '[network]\n[settings.keymgr]\nprivate_key_file = "key"\n' + "".join(
        f'[[settings.keymgr.peers]]\npublic_key = "{keyfiles.encode(bytes([n + 1] * 32))}"\nallowed_ips = {allowed}\n'
        for n, allowed in enumerate(peers)
    )

    def told(count: int) -> object:
        (tmp_path / "box.toml").write_text(pairs(count) + own)
        return load(tmp_path / "box.toml").domain("filter").settings.get("shards")

    assert told(1) is None
    assert told(2) == [
        {"allowed_ips": ["10.1.0.0/16", "fd00:1::/64"]},
        {"allowed_ips": ["10.2.0.0/16", "10.4.0.0/16"]},
    ]
    assert told(3) == [
        {"allowed_ips": ["10.1.0.0/16", "fd00:1::/64", "10.4.0.0/16"]},
        {"allowed_ips": ["10.2.0.0/16"]},
        {"allowed_ips": []},
    ]
    written = pairs(2).replace('rules = "vpn.rules"', 'rules = "vpn.rules"\nshards = []') + own
    (finding,) = findings(written, tmp_path)
    assert (finding.validator, finding.line) == ("settings", line_of(written, "shards = []"))


# Other rules can be broken only by a component that is not what it should be.


@pytest.fixture
def components(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, str], Path]:
    """Changes component.toml of one component, in a copy of all of them."""
    folder = tmp_path / "components"
    for file in catalogue.COMPONENTS.glob("*/component.toml"):
        (folder / file.parent.name).mkdir(parents=True)
        shutil.copy(file, folder / file.parent.name)
    monkeypatch.setattr(catalogue.Catalogue, "__init__", _at(folder))

    def edit(component: str, old: str, new: str) -> Path:
        file = folder / component / "component.toml"
        text = file.read_text()
        assert old in text, old
        file.write_text(text.replace(old, new, 1))
        return file

    return edit


def _at(folder: Path) -> Callable[..., None]:
    def init(self: Any) -> None:
        self.folder = folder
        self._read = {}

    return init


Edit = Callable[[str, str, str], Path]


def test_clearance_of_a_channel(components: Edit, tmp_path: Path) -> None:
    components("filter", 'clearance = ["PUBLIC", "CONTROL", "RED"]', 'clearance = ["PUBLIC", "CONTROL"]')
    found = findings(TEXT, tmp_path)
    assert {finding.validator for finding in found} == {"clearance"}
    blamed = ('"red.plain_out"', '"filter.tunnel_out"', '"decrypt.plain"', '"filter.red_out"', '"operator.filter"')
    assert {finding.line for finding in found} == {line_of(TEXT, part) for part in blamed}
    assert "filter is not cleared for RED" in found[0].detail


def test_clearance_of_a_device(components: Edit, tmp_path: Path) -> None:
    components("log", 'devices = ["journal"]', 'devices = ["journal", "tun"]')
    components("net", 'devices = ["tun"]', "")
    found = findings(TEXT, tmp_path)
    assert [finding.validator for finding in found] == ["clearance"]
    assert found[0].line == line_of(TEXT, "log = ")


def test_keys_stay(components: Edit, tmp_path: Path) -> None:
    components("rng", '"CONTROL", "KEY"]', '"CONTROL"]')
    found = findings(TEXT, tmp_path)
    assert [(finding.validator, finding.line) for finding in found] == [("keys-stay", line_of(TEXT, '"keymgr.random"'))]


def test_the_operator_calls_nobody_who_sees_keys(components: Edit, tmp_path: Path) -> None:
    components("filter", '"RED"]', '"RED", "KEY"]')
    (found,) = findings(TEXT, tmp_path)
    assert found.validator == "operator"
    assert found.line == line_of(TEXT, "operator.filter")


def test_what_is_committed_is_not_replaced_by_the_operator(tmp_path: Path) -> None:
    managed = (ASSEMBLIES / "vpn-managed.toml").read_text()
    line = '"config.ruleset" = "filter.commits"'
    assert findings(managed, tmp_path) == []
    (found,) = findings(managed.replace(line, line + '\n"operator.filter" = "filter.control"'), tmp_path)
    assert found.validator == "one-source"


def test_the_operator_is_cleared_for_what_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    role = dataclasses.replace(model.OPERATOR_ROLE, clearance=frozenset({"PUBLIC", "CONTROL"}))
    monkeypatch.setattr(draft_module, "OPERATOR_ROLE", role)
    found = findings(TEXT, tmp_path)
    assert {one.validator for one in found} == {"clearance"}
    assert "RED passes operator.filter (schema filtering); operator is not cleared for RED" in str(found[0])


def test_no_domain_is_called_operator(tmp_path: Path) -> None:
    found = findings(TEXT.replace("rng =", "operator =").replace("rng.", "operator."), tmp_path)
    assert ("names", "the monitor uses the name 'operator' for itself") in {
        (one.validator, one.detail) for one in found
    }


def test_a_box_without_an_operator(tmp_path: Path) -> None:
    file = tmp_path / "box.toml"
    file.write_text(change('"operator.filter" = "filter.control"', ""))
    box = load(file)
    assert box.parties == box.domains
    assert [party.name for party in load(VPN).parties if party not in load(VPN).domains] == ["operator"]


def test_the_operator_is_joined_once_and_only_as_a_caller(tmp_path: Path) -> None:
    line = '"operator.filter" = "filter.control"'
    assert {
        one.validator for one in findings(change(line, f'{line.replace(" = ", " = [")}, "filter.control"]'), tmp_path)
    } == {"joined-once"}
    assert {one.validator for one in findings(change(line, '"filter.control" = "operator.filter"'), tmp_path)} == {
        "direction"
    }


def test_keys_stay_in_settings(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(PRIVATE)
    found = findings(TEXT + 'private_key_file = "key"\n', tmp_path)
    assert "keys-stay" in {finding.validator for finding in found}
    assert PRIVATE[:20] not in "".join(map(str, found))


def test_plaintext_round_the_cipher(components: Edit, tmp_path: Path) -> None:
    """A filter with a wire to the WAN: every port joined, every schema right, every domain cleared, and refused."""
    components("filter", "[roles.filter.ports]", '[roles.filter.ports]\nleak = { schema = "datagrams", end = "out" }')
    components("filter", '"CONTROL", "RED"]', '"CONTROL", "RED", "BLACK"]')
    components("net", "[roles.black.ports]", '[roles.black.ports]\nmore = { schema = "datagrams", end = "in" }')
    text = change("# handshakes and keys", '"filter.leak" = "black.more"')
    (found,) = findings(text, tmp_path)
    assert (found.validator, found.line) == ("red-to-black", line_of(text, "filter.leak"))
    assert "tun of red -> filter.red_in [RED] -> black.more [BLACK, by datagrams]" in found.detail


def test_plaintext_round_the_cipher_by_a_reply(components: Edit, tmp_path: Path) -> None:
    """What a caller asks leaves it too: a filter that stores blobs sends BLACK in the request."""
    components("filter", "[roles.filter.ports]", '[roles.filter.ports]\nblobs = { schema = "blobs", end = "client" }')
    components("filter", '"CONTROL", "RED"]', '"CONTROL", "RED", "BLACK"]')
    (found,) = findings(change("# handshakes and keys", '"filter.blobs" = "store.blobs"'), tmp_path)
    assert found.validator == "red-to-black"
    assert "tun of red -> filter.red_in [RED] -> store.blobs [BLACK, by blobs]" in found.detail


def test_plaintext_to_a_black_device(components: Edit, tmp_path: Path) -> None:
    components("filter", 'main = "components.filter.main"', 'main = "components.filter.main"\ndevices = ["udp6"]')
    components("filter", '"CONTROL", "RED"]', '"CONTROL", "RED", "BLACK"]')
    components("net", 'devices = ["udp4", "udp6"]', 'devices = ["udp4"]')
    (found,) = findings(TEXT, tmp_path)
    assert (found.validator, found.line) == ("red-to-black", line_of(TEXT, "filter = "))
    assert "udp6 of filter" in found.detail


def test_a_transform_undeclared(components: Edit, tmp_path: Path) -> None:
    components("crypto", 'transforms = ["RED->BLACK"]', "")
    found = findings(TEXT, tmp_path)
    assert {finding.validator for finding in found} == {"red-to-black", "one-transform"}
    assert "tun of red -> filter.red_in -> encrypt.plain [RED] -> black.departing [BLACK" in "".join(map(str, found))


def test_replicas_of_two_roles(components: Edit, tmp_path: Path) -> None:
    """A second encrypt that is another role, with the same ports: it may be as good, and is not the same."""
    file = components("crypto", "[roles.decrypt]", "[roles.decrypt]")
    text = file.read_text()
    file.write_text(
        text + text[text.index("[roles.encrypt]") : text.index("[roles.decrypt]")].replace("encrypt", "other")
    )
    encrypt2 = 'encrypt2 = { component = "crypto", role = "{}" }'
    text = TWO.replace(encrypt2.replace("{}", "encrypt"), encrypt2.replace("{}", "other"))
    (finding, *more) = findings(text, tmp_path)
    assert (finding.validator, finding.line) == ("replicas", line_of(TWO, "encrypt2 = "))
    assert {one.validator for one in more} == {"replicas"}, "at the other port as well"
    assert "encrypt1 and encrypt2, which are not of one role" in finding.detail


def test_two_transforms(components: Edit, tmp_path: Path) -> None:
    components("crypto", "[roles.decrypt]", '[roles.decrypt]\ntransforms = ["RED->BLACK"]')
    (found,) = findings(TEXT, tmp_path)
    assert (found.validator, found.line) == ("one-transform", line_of(TEXT, "decrypt = "))


def test_a_cycle_of_calls(components: Edit, tmp_path: Path) -> None:
    components("store", "[roles.store.ports]", '[roles.store.ports]\nrandom = { schema = "nonces", end = "client" }')
    components("rng", "[roles.rng.ports]", '[roles.rng.ports]\nback = { schema = "blobs", end = "client" }')
    components("rng", '"CONTROL", "KEY"]', '"CONTROL", "KEY", "BLACK"]')
    text = change("# services", '"rng.back" = "store.blobs"\n"store.random" = "rng.nonces"')
    (found,) = findings(text, tmp_path)
    assert found.validator == "calls"
    assert found.line in (line_of(text, '"rng.back"'), line_of(text, '"store.random"'))
    assert "a cycle of calls: rng -> store -> rng" in found.detail


def test_a_device_held_twice(components: Edit, tmp_path: Path) -> None:
    components("log", 'devices = ["journal"]', 'devices = ["journal", "store"]')
    components("log", 'clearance = ["PUBLIC"]', 'clearance = ["PUBLIC", "BLACK"]')
    (found,) = findings(TEXT, tmp_path)
    assert (found.validator, found.line) == ("devices", line_of(TEXT, "store = "))
    assert "log holds already" in found.detail


def test_a_schema_that_is_none(components: Edit, tmp_path: Path) -> None:
    components("filter", 'log = { schema = "records"', 'log = { schema = "options"')
    components("log", 'schema = "records"', 'schema = "options"')
    found = findings(TEXT, tmp_path)
    assert {finding.validator for finding in found} == {"schema"}
    assert "there is no schema 'options'" in "".join(map(str, found))


def test_a_stream_is_not_a_call(components: Edit, tmp_path: Path) -> None:
    components(
        "store", 'blobs = { schema = "blobs", end = "server", many = 4 }', 'blobs = { schema = "blobs", end = "in" }'
    )
    components("keymgr", 'blobs = { schema = "blobs", end = "client" }', 'blobs = { schema = "blobs", end = "out" }')
    (found,) = findings(TEXT, tmp_path)
    assert found.validator == "direction"
    assert "schema 'blobs' is a call" in found.detail


MANIFESTS = [
    ("memory_mib = 192", "memory_mib = 8", "memory_mib"),
    ("memory_mib = 192", "memory = 192", "memory ="),
    ('clearance = ["PUBLIC"]', 'clearance = ["PUBLC"]', "clearance"),
    ('clearance = ["PUBLIC"]', 'clearance = "PUBLIC"', "clearance"),
    ('clearance = ["PUBLIC"]', 'clearance = ["PUBLIC", "PUBLIC"]', "clearance"),
    ('devices = ["journal"]', 'devices = ["jurnal"]', "devices"),
    ('main = "components.log.main"', 'main = "components.net.red"', "main"),
    ('main = "components.log.main"', 'main = "os.path"', "main"),
    ('end = "in", many = 32', 'end = "client", many = 32', "records ="),
    ('end = "in", many = 32', 'end = "in", many = 65', "records ="),
    ('end = "in", many = 32', 'end = "inn"', "records ="),
    ("[roles.log.ports]", "[roles.log.prots]", "[roles.log.prots]"),
    ('records = { schema = "records"', 'records = { schema = "../records"', "records ="),
    ("[roles.log]", "[roles.log", "[roles.log"),
]


@pytest.mark.parametrize(("old", "new", "blamed"), MANIFESTS)
def test_a_component_that_is_not_well_formed(components: Edit, tmp_path: Path, old: str, new: str, blamed: str) -> None:
    file = components("log", old, new)
    found = findings(TEXT, tmp_path)
    assert {finding.file for finding in found} == {file}
    assert {finding.validator for finding in found} <= {"keys", "well-formed"}
    assert line_of(file.read_text(), blamed) in {finding.line for finding in found}


# The network, and keys in files


def network(tmp_path: Path, lines: str, more: str = "") -> str:
    (tmp_path / "key").write_text(PRIVATE + "\n")
    (tmp_path / "key").chmod(0o600)
    return (
        TEXT
        + f'[settings.keymgr]\nprivate_key_file = "key"\n{more}[[settings.keymgr.peers]]\npublic_key = "{PUBLIC}"\n'
        f'allowed_ips = ["10.0.0.0/8", "fd00::/8"]\nendpoint = "vpn.example.net:51820"\n[network]\n{lines}\n'
    )


def test_an_assembly_with_a_network(tmp_path: Path) -> None:
    file = tmp_path / "box.toml"
    file.write_text(network(tmp_path, 'addresses = ["10.0.0.1/24"]\nlisten_port = 51820\nmtu = 1400'))
    box = load(file, lan="eth1", wan="eth2")
    assert box.network is not None
    assert (box.network.lan, box.network.wan, box.network.tunnel, box.network.mtu) == ("eth1", "eth2", "septum0", 1400)
    assert list(map(str, box.network.routes)) == ["10.0.0.0/8", "fd00::/8"]
    key = box.domain("keymgr").settings["private_key"]
    assert isinstance(key, Secret)
    assert "<Secret>" not in repr(box) and PRIVATE not in repr(box)
    assert f'"private_key": "{PRIVATE}"'.encode() in to_json(box.domain("keymgr"))
    assert b'"mtu": 1400' in to_json(box.domain("encrypt")) and b'"mtu": 1400' in to_json(box.domain("red"))
    assert b'"listen_port": 51820' in to_json(box.domain("black"))
    found = resolved(box.domain("keymgr"), {"vpn.example.net": "2001:db8::1"}.__getitem__)
    assert b'"endpoint": "[2001:db8::1]:51820"' in to_json(found)
    assert b'"endpoint": "vpn.example.net:51820"' in to_json(box.domain("keymgr"))


@pytest.mark.parametrize(
    ("lines", "blamed"),
    [
        ('addresses = ["10.0.0.1/33"]', "addresses"),
        ('addresses = ["fe80::1%eth0/64"]', "addresses"),
        ('addresses = ["10.0.0.1/24", "10.0.0.1/8"]', "addresses"),
        ('routes = ["10.0.0.1/8", "10.0.0.0/8"]', "routes"),
        ('wan_gateways = ["10.0.0.1/24"]', "wan_gateways"),
        ('lan = "eth0"\nwan = "eth0"', "wan"),
        ('lan = "septum0"', "lan"),
        ('addresses = ["fd00::1/64"]\nmtu = 1279', "mtu"),
    ],
)
def test_a_network_that_is_none(tmp_path: Path, lines: str, blamed: str) -> None:
    text = network(tmp_path, lines)
    (found,) = findings(text, tmp_path)
    assert (found.validator, found.line) == ("network", line_of(text, blamed + " ="))


@pytest.mark.parametrize(
    "lines", ['table = "main"', "table = 0", "mtu = 575", 'lan = "a/b"', 'tunel = "x"', 'wan = "é"']
)
def test_a_network_with_wrong_keys(tmp_path: Path, lines: str) -> None:
    text = network(tmp_path, lines)
    (found,) = findings(text, tmp_path)
    assert (found.validator, found.line) == ("keys", len(text.splitlines()))


@pytest.mark.parametrize(
    "value",
    [
        "2",
        "true",
        '["2"]',
        '"all"',
        '"2-"',
        '",2"',
        '"2, 3"',
        '"^3"',
        '"node:0"',
        '"12345"',
        '"2-3-4"',
        '"2\\n"',
        '"٢"',
    ],
)
def test_cpus_that_are_none(tmp_path: Path, value: str) -> None:
    text = f"{TEXT}[xen]\ncpus = {value}\n"
    (found,) = findings(text, tmp_path)
    assert (found.validator, found.line) == ("keys", line_of(text, "cpus ="))


def test_lan_without_a_network() -> None:
    with pytest.raises(AssemblyError, match=r"lan and wan given, but the file has no \[network\]"):
        load(VPN, lan="eth0", wan="eth1")


def test_a_network_needs_keys(tmp_path: Path) -> None:
    found = findings(TEXT + "[network]\n", tmp_path)
    assert {finding.validator for finding in found} == {"settings"}
    assert {"settings.keymgr.private_key", "settings.black.public_key"} <= {f.detail.partition(":")[0] for f in found}


def test_a_key_file_that_others_read_is_warned_of(tmp_path: Path) -> None:
    file = tmp_path / "box.toml"
    file.write_text(network(tmp_path, ""))
    assert load(file).warnings == ()
    (tmp_path / "key").chmod(0o644)
    tmp_path.chmod(0o755)
    assert [w for w in load(file).warnings if "is world accessible" in w and "/key'" in w]
    tmp_path.chmod(0o700)  # as wg-quick has it: the folder keeps others out
    assert load(file).warnings == ()


def test_settings_that_quote_a_key_are_scrubbed(tmp_path: Path) -> None:
    found = findings(network(tmp_path, "").replace('"10.0.0.0/8"', f'"{PRIVATE}"'), tmp_path)
    assert {finding.validator for finding in found} == {"settings"}
    assert PRIVATE[:20] not in "".join(map(str, found))


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"\xff", "is not UTF-8"),
        (b"a = " + b"[" * 5000, "nested too deeply"),
        (b"a = " + b"9" * 5000, "is not TOML"),
        (b"#" * (1 << 18) + b"\n", "more than 262144 bytes"),
        (b"a = 1\na = 2\n", "Cannot overwrite a value"),
        (b"", "name is missing"),
    ],
)
def test_files_that_are_no_assembly(tmp_path: Path, raw: bytes, why: str) -> None:
    file = tmp_path / "box.toml"
    file.write_bytes(raw)
    with pytest.raises(AssemblyError, match=why):
        load(file)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(AssemblyError, match="cannot be read: No such file"):
        load(tmp_path / "none.toml")


# Where plaintext leaves in clear, and the assembly says so

BRIDGE = (ASSEMBLIES / "filter.toml").read_text().replace('"filter.rules"', f'"{ASSEMBLIES}/filter.rules"')
BYPASS = '"filter.black_out" = "a transparent bridge: nothing is encrypted here"'
SPLIT = (ASSEMBLIES / "vpn-split.toml").read_text().replace('"vpn-split.rules"', f'"{ASSEMBLIES}/vpn-split.rules"')


def test_a_declared_bypass_is_part_of_the_box(tmp_path: Path) -> None:
    box = load(ASSEMBLIES / "filter.toml", lan="eth1", wan="eth2")
    assert [str(bypass.port) for bypass in box.bypasses] == ["filter.black_out"]
    assert box.bypass(End("filter", "black_out")) == "a transparent bridge: nothing is encrypted here"
    assert box.bypass(End("filter", "red_out")) is None
    assert box.network is not None and (box.network.lan, box.network.wan) == ("eth1", "eth2")
    assert box.devices == {"red_link", "black_link", "journal"}
    assert load(VPN).bypasses == ()


@pytest.mark.parametrize("text", [BRIDGE, SPLIT], ids=["bridge", "split"])
def test_without_the_line_it_is_refused(text: str, tmp_path: Path) -> None:
    (line,) = [line for line in text.splitlines() if line.startswith('"filter.black_out" = "') and " " in line[22:]]
    bare = text.replace(line, "")
    found = findings(bare, tmp_path)
    assert "red-to-black" in {finding.validator for finding in found} <= {"red-to-black", "one-transform"}
    first = next(finding for finding in found if finding.validator == "red-to-black")
    assert first.line == line_of(bare, '"filter.black_out"')
    assert "[RED] -> " in first.detail and "plaintext could leave" in first.detail


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('"filter.red_out" = "there is a reason for it"', "offers no bypass by filter.red_out; it offers black_out"),
        ('"red.arrived" = "there is a reason for it"', "offers no bypass by red.arrived"),
        ('"fitler.black_out" = "there is a reason for it"', "there is no domain 'fitler'; did you mean 'filter'?"),
    ],
)
def test_a_bypass_in_vain(line: str, said: str, tmp_path: Path) -> None:
    text = BRIDGE.replace(BYPASS, f"{BYPASS}\n{line}")
    (found,) = findings(text, tmp_path)
    assert (found.validator, found.line) == ("bypass", line_of(text, line))
    assert said in found.detail


def test_a_bypass_by_which_nothing_leaves(components: Edit, tmp_path: Path) -> None:
    components("filter", 'bypass = ["black_out"]', 'bypass = ["black_out", "red_out"]')
    text = BRIDGE.replace(BYPASS, f'{BYPASS}\n"filter.red_out" = "there is a reason for it"')
    (found,) = findings(text, tmp_path)
    assert found.validator == "bypass" and "declares what is not there" in found.detail


def test_a_component_offers_only_what_it_has(components: Edit, tmp_path: Path) -> None:
    file = components("filter", 'bypass = ["black_out"]', 'bypass = ["black_in"]')
    (found,) = findings(BRIDGE, tmp_path)
    assert (found.file, found.validator) == (file, "keys")
    assert "no port 'black_in' by which something goes out" in found.detail


@pytest.mark.parametrize("reason", ["", "because", "becausebecausebecause", "   so what        "])
def test_a_reason_that_is_none(reason: str, tmp_path: Path) -> None:
    text = BRIDGE.replace("a transparent bridge: nothing is encrypted here", reason)
    (found,) = findings(text, tmp_path)
    assert (found.validator, found.line) == ("bypass-reason", line_of(text, "[bypass]") + 2)


@pytest.mark.parametrize("line", ['"filter.black_out" = 1', '"filter" = "there is a reason for it"'])
def test_a_bypass_that_is_not_well_formed(line: str, tmp_path: Path) -> None:
    text = BRIDGE.replace(BYPASS, f"{BYPASS}\n".replace(BYPASS, line))
    assert "keys" in {finding.validator for finding in findings(text, tmp_path)}


@pytest.mark.parametrize(("given", "missing"), [({"lan": "eth1"}, "wan"), ({"wan": "eth1"}, "lan")])
def test_a_face_without_an_interface(given: dict[str, str], missing: str) -> None:
    with pytest.raises(AssemblyError) as refused:
        load(ASSEMBLIES / "filter.toml", **given)
    (found,) = refused.value.findings
    assert found.validator == "faces"
    assert f"--{missing} INTERFACE" in found.detail


def test_what_is_reached_in_clear_leads_to_the_filter_as_well(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(PRIVATE)
    (tmp_path / "key").chmod(0o600)
    text = SPLIT.replace("clear = [", 'clear = ["fd00:5::/48", ') + (
        '[settings.keymgr]\nprivate_key_file = "key"\n'
        f'[[settings.keymgr.peers]]\npublic_key = "{PUBLIC}"\nallowed_ips = ["10.1.0.0/16", "10.2.0.0/16"]\n'
        '[network]\nlan = "eth1"\nwan = "eth0"\n'
    )
    text = text.replace(PUBLIC, keyfiles.encode(bytes([1] * 32)))
    file = tmp_path / "box.toml"
    file.write_text(text)
    box = load(file)
    assert box.network is not None
    assert [str(one) for one in box.network.clear] == ["fd00:5::/48", "0.0.0.0/0"]
    assert [str(one) for one in box.network.routes] == ["10.1.0.0/16", "10.2.0.0/16", "fd00:5::/48", "0.0.0.0/0"]
    assert box.domain("filter").settings["tunnel"] == ["10.1.0.0/16", "10.2.0.0/16"]
    assert box.domain("clear").settings == {"mtu": 1500}
    clash = text.replace('"fd00:5::/48"', '"10.2.0.0/16"')
    (found,) = findings(clash, tmp_path)
    assert (found.validator, found.line) == ("settings", line_of(clash, "clear = ["))
    assert "is a tunnel peer's too" in found.detail
    written = text.replace("clear = [", 'tunnel = ["10.3.0.0/16"]\nclear = [')
    (found,) = findings(written, tmp_path)
    assert "follows from the peers, and is not written" in found.detail


# What we say about ourselves


def test_every_rule_has_a_test_that_breaks_it(request: pytest.FixtureRequest) -> None:
    here = Path(__file__).read_text()
    for validator in VALIDATORS:
        assert BREAKS.get(validator.name) or f'"{validator.name}"' in here.split("# Where there are replicas")[1]
        assert validator.sentence.endswith(".") and validator.sentence[0].isupper()
    assert len({validator.name for validator in VALIDATORS}) == len(VALIDATORS)


def test_a_file_of_rules_is_refused_with_its_own_places(tmp_path: Path) -> None:
    text = TEXT.replace('"vpn.rules"', '"own.rules"')
    (tmp_path / "own.rules").write_text("allow established related\n  alow from red\nallow from 10.0.0.300\n")
    first, second = findings(text, tmp_path)
    assert (first.file, first.line, first.column, first.validator) == (tmp_path / "own.rules", 2, 3, "rules")
    assert str(first).startswith(f"{tmp_path}/own.rules:2:3: 'alow' is not") and "did you mean 'allow'?" in first.detail
    assert first.excerpt.splitlines() == ["    2 |   alow from red", "      |   ^^^^"]
    assert (second.line, second.column) == (3, 12)
    (tmp_path / "own.rules").unlink()
    (finding,) = findings(text, tmp_path)
    assert str(finding) == f"{tmp_path}/own.rules: cannot be read: No such file or directory [rules]"


def test_other_rules_take_the_place_of_those_that_are_named(tmp_path: Path) -> None:
    (tmp_path / "own.rules").write_text("set a = 10.0.0.1\nallow from peer alice\nallow from black\nallow arp\n")
    box = load(VPN, rules=tmp_path / "own.rules")
    assert [rule.line for rule in decode(box.domain("filter").settings["ruleset"]).rules] == [2, 3, 4]  # type: ignore[arg-type]
    said = [warning.removeprefix(f"Warning: {tmp_path}/own.rules:") for warning in box.warnings]
    assert said == [
        "1:5: the set 'a' is never used",
        "3:1: this rule never matches: in this box nothing comes from black",
        "4:1: this rule never matches: it is about Ethernet frames, and this box passes IP packets",
    ]


def test_what_leaves_in_clear_without_translation_is_warned_of(tmp_path: Path) -> None:
    file = tmp_path / "own.rules"
    for nat, is_warned in (
        ("", True),
        ("nat from red to tunnel -> 192.0.2.1\n", True),
        ("nat from red to black -> 192.0.2.1\n", False),
        ("nat from red -> 192.0.2.1\n", False),
    ):
        file.write_text(f"allow from red\n{nat}")
        box = load(ASSEMBLIES / "vpn-split.toml", rules=file)
        assert any(one.startswith(f"Warning: {file}: nothing is translated") for one in box.warnings) is is_warned


def test_peers_have_names_for_the_rules_alone(tmp_path: Path) -> None:
    peers = "".join(
        f'[[settings.keymgr.peers]]\nname = "{name}"\npublic_key = "{key}"\n'
        for name, key in (("bob", PUBLIC), ("alice", "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="))
    )
    (tmp_path / "k").write_text(PRIVATE)
    own = f'[network]\naddresses = ["10.0.0.1/24"]\n[settings.keymgr]\nprivate_key_file = "k"\n{peers}'
    (tmp_path / "own.rules").write_text(f'allow from peer alice\nallow from peer "{PUBLIC}"\n')
    (tmp_path / "box.toml").write_text(TEXT.replace('"vpn.rules"', '"own.rules"') + own)
    box = load(tmp_path / "box.toml")
    ruleset = decode(box.domain("filter").settings["ruleset"])  # type: ignore[arg-type]
    assert [rule.peers for rule in ruleset.rules] == [(2,), (1,)]
    assert "name" not in box.domain("keymgr").settings["peers"][0]  # type: ignore[index]
    (tmp_path / "own.rules").write_text("allow from peer carol\n")
    with pytest.raises(AssemblyError, match="there is no peer 'carol'; known: 'bob', 'alice'"):
        load(tmp_path / "box.toml")


def test_the_manual_is_current() -> None:
    assert manual() in (ROOT / "docs/assembly.md").read_text()


def test_our_labels_are_those_of_the_schemas() -> None:
    from septum.v1 import options_pb2

    assert list(LABELS) == options_pb2.Label.keys()[1:]
    assert {device.label for device in DEVICES.values()} <= set(LABELS)
    for name in schema_names():
        assert schemas.forward(name) | schemas.backward(name) <= set(LABELS)
        assert schemas.forward(name)
        assert schemas.grants(name) * 4096 == schemas.memory(name)


# Whatever is done to the file: a box or findings, never another exception


def nodes(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*way, key)
            yield from nodes(inner, (*way, key))


DATA = tomllib.loads(TEXT)
WAYS = list(nodes(DATA))
ENDS = sorted({end for pair in DATA["channels"].items() for end in pair})
ODD: list[Any] = [
    0,
    -1,
    2**70,
    True,
    "",
    "x",
    "rng",
    "red.plain_out",
    "a.b.c",
    1.5,
    float("nan"),
    [],
    ["x"],
    {},
    {"x": {}},
]


def dump(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f'"{key}" = {dump(inner)}' for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(dump, value)) + "]"
    return str(value).lower() if isinstance(value, bool) else f'"{value}"' if isinstance(value, str) else repr(value)


mutations = st.one_of(
    st.tuples(st.just("delete"), st.sampled_from(WAYS)),
    st.tuples(st.just("set"), st.sampled_from(WAYS), st.sampled_from(ODD)),
    st.tuples(st.just("add"), st.sampled_from([(), *WAYS]), st.sampled_from(["x", "", "limits", "network", "rng.log"])),
    st.tuples(st.just("rewire"), st.sampled_from(ENDS), st.sampled_from(ENDS)),
)


def mutate(data: Any, mutation: tuple[Any, ...]) -> None:
    kind, where, *rest = mutation
    if kind == "rewire":
        if isinstance(data.get("channels"), dict):
            data["channels"][where] = rest[0]
        return
    for part in where if kind == "add" else where[:-1]:
        if not isinstance(data, dict) or part not in data:
            return
        data = data[part]
    if not isinstance(data, dict):
        return
    if kind == "delete":
        data.pop(where[-1], None)
    elif kind == "set":
        data[where[-1]] = copy.deepcopy(rest[0])
    else:
        data[rest[0]] = {}


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(mutations, min_size=1, max_size=6))
def test_any_change_of_the_tree(changes: list[tuple[Any, ...]], tmp_path: Path) -> None:
    data = copy.deepcopy(DATA)
    for one in changes:
        mutate(data, one)
    found = findings("".join(f'"{key}" = {dump(value)}\n' for key, value in data.items()), tmp_path)
    rules = {validator.name for validator in VALIDATORS} | {"keys", "well-formed", "secrets", "rules"}
    assert {finding.validator for finding in found} <= rules
    if repr(data) == repr(DATA):  # to == True is 1
        assert not found


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_change_of_the_text(tmp_path: Path, data: st.DataObject) -> None:
    text = TEXT
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = min(len(text), start + data.draw(st.integers(0, 40)))
        text = text[:start] + data.draw(st.text(st.characters(codec="utf-8"), max_size=8)) + text[end:]
    findings(text, tmp_path)
