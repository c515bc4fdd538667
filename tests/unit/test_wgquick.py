"""A wg-quick file is read as wg-quick and wg read it, and what is wrong is said at once, by line, without a key."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.assembly.findings import AssemblyError, Finding
from appliance.assembly.load import ASSEMBLIES, VPN, load
from appliance.assembly.model import ValidatedAssembly
from appliance.assembly.settings import to_json
from appliance.assembly.wgquick import REFUSED, from_wgquick, parse
from appliance.guest.secret import Secret
from components.filter.ruleset import decode

# From the example of wg(8); the public key of the private one is as `wg pubkey` prints it
PRIVATE = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="
OWN = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw="
PSK = "6NK8mC0ZUQ4ooEfLgJmBGnmQ2CbKCjAC9KlJ7KZHa1M="
ALICE = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
BOB = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0="
CAROL = "gN65BkIKy1eCE9pP1wdc8ROUtkHLF2PfAqYdyYBz6EA="

TYPICAL = f"""\
# the office
[Interface]
Address = 10.192.122.1/24, fd00:122::1/64
Address = 10.10.0.1/16   # the second
PrivateKey = {PRIVATE}
ListenPort = 51820
MTU = 1380
Table = 1234
FwMark = 0xCA6C

[Peer]
PublicKey = {ALICE}
PresharedKey = {PSK}
AllowedIPs = 10.192.122.3/32, 10.192.124.1/24
AllowedIPs = fd00:122::/64
Endpoint = VPN.example.net:51821
PersistentKeepalive = 25

[Peer]
PublicKey = {BOB}
AllowedIPs = 10.192.122.4
Endpoint = [2001:DB8::1]:51822
"""


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path / "wg0.conf"


def box(conf: Path, text: str, **links: str) -> ValidatedAssembly:
    conf.write_text(text)
    conf.chmod(0o600)
    return from_wgquick(conf, **links)  # type: ignore[arg-type]


def refused(conf: Path, text: str) -> list[Finding]:
    with pytest.raises(AssemblyError) as caught:
        box(conf, text)
    return caught.value.findings


def keymgr(assembly: ValidatedAssembly) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(to_json(assembly.domain("keymgr")))
    return told


def interface(*lines: str) -> str:
    return "\n".join(["[Interface]", f"PrivateKey = {PRIVATE}", *lines, ""])


def peer(public: str, *lines: str) -> str:
    return "\n".join(["[Peer]", f"PublicKey = {public}", *lines, ""])


def test_a_file_over_the_assembly_of_two_pairs(conf: Path) -> None:
    conf.write_text(TYPICAL)
    conf.chmod(0o600)
    assembly = from_wgquick(conf, base=ASSEMBLIES / "vpn-2.toml")
    assert keymgr(assembly) == keymgr(from_wgquick(conf))
    assert assembly.domain("filter").settings["shards"] == [
        {"allowed_ips": ["10.192.122.3/32", "10.192.124.0/24", "fd00:122::/64"]},
        {"allowed_ips": ["10.192.122.4/32"]},
    ]
    assert assembly.domain("encrypt1").settings == assembly.domain("encrypt2").settings == {"mtu": 1380}


def test_a_typical_file(conf: Path) -> None:
    assembly = box(conf, TYPICAL, lan="eth1", wan="eth0")
    network = assembly.network
    assert network is not None
    assert (network.tunnel, network.lan, network.wan) == ("wg0", "eth1", "eth0")
    assert list(map(str, network.addresses)) == ["10.192.122.1/24", "fd00:122::1/64", "10.10.0.1/16"]
    assert (network.mtu, network.table, network.fwmark, network.listen_port) == (1380, 1234, 0xCA6C, 51820)
    assert list(map(str, network.routes)) == ["10.192.122.3/32", "10.192.124.0/24", "fd00:122::/64", "10.192.122.4/32"]
    assert assembly.source == conf and assembly.warnings == ()
    assert keymgr(assembly) == {
        "private_key": PRIVATE,
        "peers": [
            {
                "public_key": ALICE,
                "preshared_key": PSK,
                "allowed_ips": ["10.192.122.3/32", "10.192.124.0/24", "fd00:122::/64"],
                "endpoint": "vpn.example.net:51821",
                "keepalive": 25,
            },
            {"public_key": BOB, "allowed_ips": ["10.192.122.4/32"], "endpoint": "[2001:db8::1]:51822"},
        ],
    }
    assert dict(assembly.domain("black").settings) == {"listen_port": 51820, "fwmark": 0xCA6C, "public_key": OWN}
    assert dict(assembly.domain("red").settings) == dict(assembly.domain("encrypt").settings) == {"mtu": 1380}
    assert assembly.domain("filter").settings == load(VPN).domain("filter").settings


def test_rules_call_peers_what_comments_do(conf: Path) -> None:
    rules = conf.with_name("own.rules")
    rules.write_text("allow from peer bob\nallow from peer alice\n")
    conf.write_text(
        TYPICAL.replace("[Peer]", "# alice\n[Peer]", 1).replace(
            f"PublicKey = {BOB}", f"# Name = bob\nPublicKey = {BOB}"
        )
    )
    ruleset = from_wgquick(conf, rules=rules).domain("filter").settings["ruleset"]
    assert [rule.peers for rule in decode(ruleset).rules] == [(2,), (1,)]  # type: ignore[arg-type]


def test_secrets_do_not_show(conf: Path) -> None:
    assembly = box(conf, TYPICAL)
    settings = assembly.domain("keymgr").settings
    assert isinstance(settings["private_key"], Secret)
    assert isinstance(settings["peers"][0]["preshared_key"], Secret)  # type: ignore[index]
    shown = repr(assembly) + str(assembly) + repr(settings) + str(dict(settings))
    assert PRIVATE not in shown and PSK not in shown
    assert repr(base64.b64decode(PRIVATE))[2:10] not in shown
    # and only keymgr is told
    for domain in assembly.domains:
        assert (PRIVATE.encode() in to_json(domain)) is (domain.name == "keymgr")


def test_the_least_there_can_be(conf: Path) -> None:
    assembly = box(conf, interface())
    assert keymgr(assembly) == {"private_key": PRIVATE, "peers": []}
    network = assembly.network
    assert network is not None
    assert (network.mtu, network.table, network.fwmark, network.listen_port) == (1420, "auto", 0, 0)
    assert network.routes == network.addresses == ()
    assert network.lan is network.wan is None


def test_the_way_it_is_written_does_not_matter(conf: Path) -> None:
    """Case, blanks, CRLF, comments, a comment that is not UTF-8, sections in any order and more than once."""
    expected = keymgr(box(conf, TYPICAL))
    odd = TYPICAL.replace("\n", "  \r\n").replace(" = ", "=").replace("=", " \t= ", 5)
    odd = re.sub(r"(?m)^(\[?\w+)", lambda m: m[1].swapcase(), odd).replace("VPN.EXAMPLE", "vpn.example")
    assert keymgr(box(conf, odd)) == expected
    assert keymgr(box(conf, TYPICAL.replace(PRIVATE, " ".join(PRIVATE)))) == expected  # wg drops blanks within, too
    assert keymgr(box(conf, TYPICAL.replace("\n", " # PrivateKey = x\n").removesuffix("\n"))) == expected
    conf.write_bytes(TYPICAL.replace("the office", "").encode() + b"# \xff\xfe\n")
    assert keymgr(from_wgquick(conf)) == expected
    head, alice, bob = TYPICAL.split("[Peer]")
    assert keymgr(box(conf, f"[Peer]{alice}[Peer]{bob}{head}"))["peers"] == expected["peers"]
    split = head.replace("ListenPort", "[Interface]\nListenPort")
    assert keymgr(box(conf, f"{split}[Peer]{alice}[Peer]{bob}")) == expected


def test_the_last_of_a_repeated_key_wins(conf: Path) -> None:
    assembly = box(
        conf, interface("MTU = 1300", "mtu = 1400", "ListenPort = 1", "LISTENPORT = 2", "Table = off", "Table=AUTO")
    )
    assert assembly.network is not None
    assert (assembly.network.mtu, assembly.network.listen_port, assembly.network.table) == (1400, 2, "auto")


def test_a_prefix_belongs_to_the_last_that_claims_it(conf: Path) -> None:
    text = (
        interface()
        + peer(ALICE, "AllowedIPs = 10.0.0.0/8, 10.1.0.0/16")
        + peer(BOB, "AllowedIPs = 10.0.0.7/8, fd00::/8")
    )
    peers = keymgr(box(conf, text))["peers"]
    assert [one["allowed_ips"] for one in peers] == [["10.1.0.0/16"], ["10.0.0.0/8", "fd00::/8"]]


def test_a_peer_that_comes_again(conf: Path) -> None:
    """Each [Peer] replaces the allowed IPs of its key; what it does not say stays. Moved prefixes do not come back."""
    text = interface() + peer(ALICE, "AllowedIPs = 10.0.0.0/8", "Endpoint = 1.2.3.4:5", f"PresharedKey = {PSK}")
    text += peer(BOB, "AllowedIPs = 10.0.0.0/8, 10.2.0.0/16")
    text += peer(ALICE, "AllowedIPs = 10.2.0.0/16", "PersistentKeepalive = 7")
    alice, bob = keymgr(box(conf, text))["peers"]
    assert alice == {
        "public_key": ALICE,
        "preshared_key": PSK,
        "endpoint": "1.2.3.4:5",
        "keepalive": 7,
        "allowed_ips": ["10.2.0.0/16"],
    }
    assert bob["allowed_ips"] == ["10.0.0.0/8"]
    alice, bob = keymgr(box(conf, text + peer(ALICE) + peer(CAROL, "AllowedIPs = 10.2.0.0/16")))["peers"][:2]
    assert (alice["allowed_ips"], alice["endpoint"], bob["allowed_ips"]) == ([], "1.2.3.4:5", ["10.0.0.0/8"])


def test_the_box_is_no_peer_of_itself(conf: Path) -> None:
    assembly = box(conf, interface() + peer(OWN, "AllowedIPs = 10.0.0.0/8") + peer(ALICE))
    assert [one["public_key"] for one in keymgr(assembly)["peers"]] == [ALICE]
    assert assembly.warnings == ("Warning: the [Peer] at line 3 is the box itself; it is ignored",)


GOOD = [
    ("interface", "FwMark", "off", ("fwmark", 0)),
    ("interface", "FwMark", "OFF", ("fwmark", 0)),
    ("interface", "FwMark", "51820", ("fwmark", 51820)),
    ("interface", "FwMark", "0xffffffff", ("fwmark", 2**32 - 1)),
    ("interface", "ListenPort", "0", ("listen_port", 0)),
    ("interface", "ListenPort", "65535", ("listen_port", 65535)),
    ("interface", "Table", "off", ("table", "off")),
    ("interface", "Table", "51820", ("table", 51820)),
    ("interface", "MTU", "1280", ("mtu", 1280)),
    ("interface", "SaveConfig", "false", ("mtu", 1420)),
    ("peer", "PersistentKeepalive", "off", ("keepalive", 0)),
    ("peer", "PersistentKeepalive", "0", ("keepalive", 0)),
    ("peer", "PersistentKeepalive", "65535", ("keepalive", 65535)),
    ("peer", "AllowedIPs", "0.0.0.0/0,::/0", ("allowed_ips", ["0.0.0.0/0", "::/0"])),
    ("peer", "AllowedIPs", "fd00::1.2.3.4", ("allowed_ips", ["fd00::102:304/128"])),
    ("peer", "AllowedIPs", "192.168.1.1/024", ("allowed_ips", ["192.168.1.0/24"])),
    ("peer", "Endpoint", "192.0.2.1:51820", ("endpoint", "192.0.2.1:51820")),
    ("peer", "Endpoint", "[::1]:1", ("endpoint", "[::1]:1")),
    ("peer", "Endpoint", "2001:db8::1:51820", ("endpoint", "[2001:db8::1]:51820")),
    ("peer", "Endpoint", "my_gate.example.:65535", ("endpoint", "my_gate.example.:65535")),
]


@pytest.mark.parametrize(("section", "key", "value", "told"), GOOD)
def test_values(conf: Path, section: str, key: str, value: str, told: tuple[str, object]) -> None:
    line = f"{key} = {value}"
    assembly = box(conf, interface(line) if section == "interface" else interface() + peer(ALICE, line))
    name, expected = told
    if section == "interface":
        assert getattr(assembly.network, name) == expected
    else:
        assert keymgr(assembly)["peers"][0][name] == expected


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("10.0.0.1", ["10.0.0.1/32"]),
        ("fd00::1", ["fd00::1/128"]),
        ("10.0.0.1/24 fd00::1/64,10.0.1.1/24 ,", ["10.0.0.1/24", "fd00::1/64", "10.0.1.1/24"]),
        ("", []),
    ],
)
def test_addresses(conf: Path, value: str, told: list[str]) -> None:
    network = box(conf, interface(f"Address = {value}")).network
    assert network is not None and list(map(str, network.addresses)) == told


BAD = [
    ("interface", "FwMark", ["", "0x", "0x1ffffffff", "4294967296", "-1", "on", "0X1", "0xg", "9" * 40]),
    ("interface", "ListenPort", ["", "65536", "-1", "0x10", "http", "1.0", "\u0661"]),
    ("interface", "Table", ["", "main", "0", "4294967296", "-1"]),
    ("interface", "MTU", ["", "575", "9217", "1400x", "14 20"]),
    ("interface", "Address", ["10.0.0.1/33", "fd00::1/129", "10.0.0.256", "10.0.0.01", "x"]),
    ("interface", "Address", ["10.0.0.1/", "fe80::1%eth0"]),
    ("interface", "PrivateKey", ["", PRIVATE[:-1], PRIVATE[:-2] + "l=", PRIVATE + "="]),
    ("interface", "PrivateKey", [PRIVATE[:-4] + "====", "A" * 43 + "="]),
    ("interface", "SaveConfig", ["true", "1", ""]),
    ("peer", "PublicKey", ["", ALICE[1:], ALICE[:-2] + "h=", ALICE.replace("x", "!")]),
    ("peer", "PresharedKey", ["", PSK[:-4], PSK + PSK]),
    ("peer", "AllowedIPs", ["10.0.0.0/33", "10.0.0.0/8,", ",", "10.0.0.0/+8", "10.0.0.0/x"]),
    ("peer", "AllowedIPs", ["", "10.0.0.0/8/8", "fd00::/129", "ten"]),
    ("peer", "Endpoint", ["", "1.2.3.4", "1.2.3.4:", "1.2.3.4:0", "1.2.3.4:65536", "1.2.3.4:x", "[::1]", "[::1]51820"]),
    ("peer", "Endpoint", ["[::1:5", "[1.2.3.4]:5", "1.2.3:5", "1.2.3.4.5:5", ":5", "-a:5", "a..b:5"]),
    ("peer", "Endpoint", ["fe80::1%eth0:5", "a/b:5"]),
    ("peer", "PersistentKeepalive", ["", "65536", "-1", "on", "25s"]),
]  # fmt: skip


@pytest.mark.parametrize(("section", "key", "value"), [(s, k, v) for s, k, values in BAD for v in values])
def test_wrong_values(conf: Path, section: str, key: str, value: str) -> None:
    text = interface() if key != "PrivateKey" else "[Interface]\n\n"
    text += peer(ALICE) if section == "peer" and key != "PublicKey" else "[Peer]\n\n" if section == "peer" else ""
    text += f"{key} = {value}\n"
    (found,) = refused(conf, text)
    assert (found.file, found.line, found.validator) == (conf, text.count("\n"), "wg-quick")
    assert found.detail.startswith(f"{key} ")
    assert not re.search(r"[A-Za-z0-9+/]{22}", found.detail)


@pytest.mark.parametrize("key", ["DNS", "PreUp", "PostUp", "PreDown", "PostDown", "SaveConfig"])
def test_what_the_box_does_not_do(conf: Path, key: str) -> None:
    value = "true" if key == "SaveConfig" else "iptables -A FORWARD -i %i = ACCEPT"
    for written in (key, key.upper(), key.lower()):
        (found,) = refused(conf, interface(f"{written} = {value}"))
        assert str(found).startswith(f"{conf}:3: {key} is not done: ")
        assert "\n" not in str(found)
    assert key.lower() in REFUSED


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("Adress = 10.0.0.1", "there is no key 'Adress' in [Interface]; did you mean 'Address'?"),
        ("Endpoint = 1.2.3.4:5", "Endpoint belongs into [Peer]"),
        ("hello", "this is neither a section nor `Key = value`"),
        (f"{PRIVATE}", "this is neither a section nor `Key = value`"),
        (f"PrivateKey: {PRIVATE}", "this is neither a section nor `Key = value`"),
        (f"Private-Key = {PRIVATE}", "this is neither a section nor `Key = value`"),
        ("[Peers]", "there is no section '[Peers]'; there are [Interface] and [Peer]"),
    ],
)
def test_lines_that_nobody_knows(conf: Path, line: str, why: str) -> None:
    (found,) = refused(conf, interface(line))
    assert (found.line, found.detail) == (3, why)


def test_lines_in_the_wrong_place(conf: Path) -> None:
    found = refused(conf, "ListenPort = 1\n" + interface() + peer(ALICE, "Address = 10.0.0.1"))
    assert [(one.line, one.detail) for one in found] == [
        (1, "'ListenPort' stands before the first [Interface] or [Peer]"),
        (6, "Address belongs into [Interface]"),
    ]


def test_everything_at_once(conf: Path) -> None:
    text = "[Interface]\nMTU = x\nDNS = 1.1.1.1\n[Peer]\nAllowedIPs = x\nEndpoint = y\n[Peer]\nPublicKey = z\n"
    found = refused(conf, text)
    assert [(one.line, one.detail.split()[0]) for one in found] == [
        (1, "[Interface]"),
        (2, "MTU"),
        (3, "DNS"),
        (4, "this"),
        (5, "AllowedIPs"),
        (6, "Endpoint"),
        (8, "PublicKey"),
    ]
    assert "has no PrivateKey" in found[0].detail and "has no PublicKey" in found[3].detail


def test_what_the_components_refuse_has_the_line_of_the_file(conf: Path) -> None:
    many = ", ".join(f"10.{i >> 8}.{i & 255}.0/24" for i in range(1025))
    text = interface() + peer(BOB) + peer(ALICE, "Endpoint = 1.2.3.4:5", f"AllowedIPs = {many}")
    (found,) = refused(conf, text)
    assert (found.file, found.line, found.validator) == (conf, 8, "settings")
    (found,) = refused(conf, interface("Address = fd00::1/64", "MTU = 1279"))
    assert (found.file, found.line, found.validator) == (conf, 4, "network")
    (found,) = refused(conf, interface("Address = 10.0.0.1/24", "Address = 10.0.0.1/16"))
    assert (found.file, found.line, found.validator) == (conf, 4, "network")


@pytest.mark.parametrize("name", ["an-interface-too-long.conf", "wg0.txt", "wg 0.conf", ".conf"])
def test_the_name_of_the_file_names_the_interface(tmp_path: Path, name: str) -> None:
    (found,) = refused(tmp_path / name, interface())
    assert "name must be that of an interface" in found.detail


def test_a_file_that_everybody_can_read(conf: Path) -> None:
    box(conf, TYPICAL)
    conf.chmod(0o644)
    assert from_wgquick(conf).warnings == ()  # the folder keeps them out
    conf.parent.chmod(0o755)
    assert from_wgquick(conf).warnings == (f"Warning: `{conf}' is world accessible; chmod go-rwx it",)


def test_files_that_cannot_be_read(conf: Path) -> None:
    with pytest.raises(FileNotFoundError):
        from_wgquick(conf)
    with pytest.raises(IsADirectoryError):
        from_wgquick(conf.parent)
    conf.write_bytes(b"#" * (1 << 24) + b"\n")
    with pytest.raises(AssemblyError, match="has more than 16777216 bytes"):
        from_wgquick(conf)


def test_thousands_of_peers(conf: Path) -> None:
    keys = [base64.b64encode(i.to_bytes(32, "big")).decode() for i in range(1, 3001)]
    text = interface() + "".join(peer(key, f"AllowedIPs = 10.{i >> 8}.{i & 255}.1") for i, key in enumerate(keys))
    assembly = box(conf, text)
    assert [one["public_key"] for one in keymgr(assembly)["peers"]] == keys
    assert assembly.network is not None and len(assembly.network.routes) == 3000


# Whatever the file says: a box or findings, and never a key


words = st.sampled_from(
    "PrivateKey PresharedKey PublicKey Endpoint AllowedIPs Address MTU Table DNS PostUp x = = = , # [Peer] "
    f"[Interface] : / 10.0.0.1 ::1 51820 {PRIVATE} {PSK} {PRIVATE[:-1]} {PSK[3:]} {ALICE}".split()
)
texts = st.lists(st.one_of(words, st.sampled_from([" ", "\n", "\n"]), st.text(max_size=4)), max_size=40).map("".join)


def leaks(said: str) -> bool:
    return any(secret[i : i + 22] in said for secret in (PRIVATE, PSK) for i in range(22))


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(middle=texts, whole=st.booleans())
def test_any_text(conf: Path, middle: str, whole: bool) -> None:
    text = middle if whole else interface(middle) + peer(ALICE, middle)
    conf.write_bytes(text.encode(errors="surrogatepass"))
    try:
        assembly = from_wgquick(conf)
    except AssemblyError as error:
        assert error.findings and not leaks(str(error) + repr(error.findings))
    else:
        assert not leaks(repr(assembly))


@given(texts)
def test_every_line_is_counted(text: str) -> None:
    last = text.count("\n") + 1
    assert all(1 <= line <= last for line, _ in parse(text).problems)


def test_a_managed_box_of_its_own_has_all_routes_into_the_tunnel(conf: Path) -> None:
    """Its peers come with commits, and what belongs to none of them goes no further than encrypt."""
    conf.write_text(f"[Interface]\nPrivateKey = {PRIVATE}\nAddress = 10.0.0.1/24\n")
    managed = ASSEMBLIES / "vpn-managed.toml"

    def routes(lan: str | None, base: Path) -> list[str]:
        network = from_wgquick(conf, lan=lan, wan=lan and "eth0", base=base).network
        assert network is not None
        return [str(one) for one in network.routes]

    assert routes("eth1", managed) == ["0.0.0.0/0", "::/0"]
    assert routes(None, managed) == [], "the host's own way out is not taken from it"
    assert routes("eth1", VPN) == []
