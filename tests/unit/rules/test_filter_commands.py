"""`septum filter explain`, `lint` and `diff` as they are typed: what they print, and their exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, UDP  # type: ignore[import-untyped]
from scapy.layers.l2 import ARP, LLC, STP, Dot1Q, Dot3, Ether  # type: ignore[import-untyped]
from scapy.utils import PcapWriter  # type: ignore[import-untyped]
from typer.testing import CliRunner

from appliance.assembly.load import ASSEMBLIES
from appliance.cli.commands import app

RULES = """\
lan 10.1.0.0/16
allow established related
allow "web" from red tcp port https
reject from red udp port dns
allow from peer alice tcp to 10.1.0.10 port ssh
"""


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    (tmp_path / "x.rules").write_text(RULES)
    return tmp_path / "x.rules"


def run(*words: str) -> tuple[int, str]:
    ended = CliRunner().invoke(app, ["filter", *words])
    assert ended.exception is None or isinstance(ended.exception, SystemExit), ended.exception
    return ended.exit_code, ended.output


def machine(*words: str) -> tuple[int, Any]:
    code, text = run(*words, "--json")
    return code, json.loads(text)


def test_explain(rules: Path) -> None:
    code, (web, answer, name, other) = machine(
        "explain",
        "tcp 10.1.0.5:51000 > 192.0.2.7:443",
        "from tunnel tcp 192.0.2.7:443 > 10.1.0.5:51000 flags syn,ack",
        "udp 10.1.0.5:4000 > 192.0.2.7:53",
        "udp 10.2.0.5:4000 > 192.0.2.7:53",
        "--rules",
        str(rules),
    )
    assert code == 1
    assert (web["verdict"], web["at"], web["leaves"]) == ("allow", f"{rules}:3", "tunnel")
    assert web["text"] == 'allow "web" from red tcp to port 443'
    assert (answer["verdict"], answer["at"]) == ("allow", f"{rules}:2")
    assert "opened from the red side" in answer["state"]
    assert (name["verdict"], name["at"]) == ("reject", f"{rules}:4")
    assert (other["verdict"], other["at"]) == ("drop", None) and "belongs on another side" in other["why"]
    code, text = run("explain", "tcp 10.1.0.5:1 > 192.0.2.7:443", "--rules", str(rules))
    assert code == 0 and text.startswith("allow  from red tcp 10.1.0.5:1 > 192.0.2.7:443\n") and f"{rules}:3" in text


def test_explain_from_somebody_else(rules: Path) -> None:
    packet = "tcp 10.8.0.2:40000 > 10.1.0.10:22"
    for origin, verdict in (("peer alice", "allow"), ("red", "drop"), ("black", "drop")):
        _, (told,) = machine("explain", packet, "--from", origin, "--rules", str(rules))
        assert told["verdict"] == verdict
    assert run("explain", packet, "--from", "peer carol", "--rules", str(rules))[0] == 2


def test_explain_a_capture(rules: Path, tmp_path: Path) -> None:
    writer = PcapWriter(str(tmp_path / "x.pcap"), linktype=101)
    there = IP(src="10.1.0.5", dst="192.0.2.7") / TCP(sport=51000, dport=443, flags="S", seq=7)
    back = IP(src="192.0.2.7", dst="10.1.0.5") / TCP(sport=443, dport=51000, flags="SA", seq=9, ack=8)
    for packet in (there, back, IP(src="192.0.2.7", dst="10.1.0.5") / UDP(sport=53, dport=4000)):
        writer.write(packet)
    writer.close()
    code, told = machine("explain", "--pcap", str(tmp_path / "x.pcap"), "--rules", str(rules))
    assert code == 1
    assert [(one["number"], one["verdict"], one["at"]) for one in told] == [
        (1, "allow", f"{rules}:3"),
        (2, "allow", f"{rules}:2"),
        (3, "drop", None),
    ]
    code, text = run("explain", "--pcap", str(tmp_path / "x.pcap"), "--rules", str(rules))
    assert "3 packets, of which 2 pass" in text
    (tmp_path / "y.pcap").write_bytes(b"no capture")
    assert run("explain", "--pcap", str(tmp_path / "y.pcap"), "--rules", str(rules))[0] == 2
    assert run("explain", "--pcap", str(tmp_path / "none"), "--rules", str(rules))[0] == 2


def test_lint(rules: Path) -> None:
    assert run("lint", str(rules)) == (0, "4 rules, nothing to say about them\n")
    rules.write_text(RULES + "set a = 10.0.0.1\ndrop from red 10.1.2.0/24 tcp port 443\n")
    code, found = machine("lint", str(rules))
    assert code == 1 and [(one["kind"], one["at"]) for one in found] == [
        ("shadowed", f"{rules}:7"),
        ("unused", f"{rules}:6"),
    ]
    assert found[0]["others"] == [f"{rules}:3"]
    code, text = run("lint", str(rules))
    assert code == 1 and "2 findings" in text


def test_diff(rules: Path) -> None:
    new = rules.with_name("new.rules")
    new.write_text(RULES.replace("reject", "drop"))
    assert run("diff", str(rules), str(rules)) == (0, "no packet is treated otherwise\n")
    code, found = machine("diff", str(rules), str(new))
    (change,) = found["changes"]
    assert code == 1 and found["gave_up"] == []
    assert (change["before"]["does"], change["after"]["does"]) == ("reject", "drop")
    assert change["example"] == "from red udp 10.1.0.1:51000 > 192.0.2.7:53"
    _, (told,) = machine("explain", change["example"], "--rules", str(new))
    assert told["verdict"] == "drop", "an example can be explained as it is"


@pytest.mark.parametrize(
    "words", [("lint", "F"), ("diff", "F", "F"), ("explain", "udp 10.1.0.1 > 10.2.0.1", "--rules", "F")]
)
def test_a_file_that_is_refused(words: tuple[str, ...], rules: Path) -> None:
    rules.write_text("alow from red\n")
    assert run(*(str(rules) if word == "F" else word for word in words))[0] == 2


def test_peers_of_a_wg_quick_file(rules: Path, tmp_path: Path) -> None:
    conf = tmp_path / "wg0.conf"
    peers = "".join(f"# {name}\n[Peer]\nPublicKey = {key}\n\n" for name, key in (("bob", BOB), ("alice", ALICE)))
    conf.write_text(f"[Interface]\nPrivateKey = x\n\n{peers}")
    _, (told,) = machine(
        "explain", "from peer 2 tcp 10.8.0.2:1 > 10.1.0.10:22", "--rules", str(rules), "--peers", str(conf)
    )
    assert told["verdict"] == "allow"
    conf.write_text("[Interface]\n")
    assert run("lint", str(rules), "--peers", str(conf))[0] == 2


ALICE = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
BOB = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0="


BRIDGE = """\
lan 10.1.0.0/16
allow established related vlan none, 10
allow arp vlan none, 10
allow stp from red
allow from red mac 02:00:00:00:00:05 vlan 10 tcp port http
allow from red udp port dns
"""


def test_explain_in_a_box_that_passes_frames(tmp_path: Path) -> None:
    file = tmp_path / "bridge.rules"
    file.write_text(BRIDGE)
    code, told = machine(
        "explain",
        "arp request vlan 10",
        "from black arp reply vlan 11",
        "stp",
        "from black stp",
        "tcp 10.1.0.5:1 > 192.0.2.7:80 vlan 10 source 02:00:00:00:00:05",
        "tcp 10.1.0.5:1 > 192.0.2.7:80 vlan 10",
        "udp 0.0.0.0:68 > 255.255.255.255:53",
        "--assembly",
        "filter",
        "--rules",
        str(file),
    )
    assert code == 1
    decided = [one["at"] and int(one["at"].rpartition(":")[2]) for one in told]
    assert decided == [3, None, 4, None, 5, None, 6], "where no address is asked for one"
    assert [one["leaves"] for one in told][:3] == ["black", None, "black"]


def test_explain_frames_of_a_capture(tmp_path: Path) -> None:
    file = tmp_path / "bridge.rules"
    file.write_text(BRIDGE)
    here, there = "02:00:00:00:00:05", "02:00:00:00:00:09"
    web = IP(src="10.1.0.5", dst="192.0.2.7") / TCP(sport=1, dport=80)
    writer = PcapWriter(str(tmp_path / "x.pcap"), linktype=1)
    for frame in (
        Ether(src=here, dst="ff:ff:ff:ff:ff:ff") / ARP(psrc="10.1.0.5", pdst="10.1.0.1") / (b"\0" * 18),
        Ether(src=here, dst="ff:ff:ff:ff:ff:ff") / ARP(psrc="10.2.0.5", pdst="10.1.0.1"),
        Dot3(src=here, dst="01:80:c2:00:00:00") / LLC(dsap=0x42, ssap=0x42, ctrl=3) / STP(),
        Ether(src=here, dst=there) / Dot1Q(vlan=10) / web,
        Ether(src=there, dst=here)
        / Dot1Q(vlan=10)
        / IP(src="192.0.2.7", dst="10.1.0.5")
        / TCP(sport=80, dport=1, flags="SA", ack=1),
        Ether(src=here, dst=there) / web,
        Ether(src=here, dst=there) / Dot1Q(vlan=10) / Dot1Q(vlan=7) / web,
        Ether(src=here, dst=there, type=0x88B5) / b"what is it",
    ):
        writer.write(frame)
    writer.close()
    code, told = machine("explain", "--pcap", str(tmp_path / "x.pcap"), "--assembly", "filter", "--rules", str(file))
    decided = [one["at"] and int(one["at"].rpartition(":")[2]) for one in told]
    assert code == 1 and decided == [3, None, 4, 5, 2, None, None, None]
    assert "belongs on another side" in told[1]["why"] and "vlan 10" not in told[0]["packet"]
    assert "ethertype 0x88b5" in told[7]["packet"] and "ethertype 0x8100" in told[6]["packet"]
    raw = PcapWriter(str(tmp_path / "y.pcap"), linktype=101)
    raw.write(web)
    raw.close()
    code, text = run("explain", "--pcap", str(tmp_path / "y.pcap"), "--assembly", "filter", "--rules", str(file))
    assert code == 2 and "no Ethernet header" in text


def test_explain_in_a_split_tunnel(tmp_path: Path) -> None:
    conf = tmp_path / "wg0.conf"
    conf.write_text(f"[Interface]\nPrivateKey = x\n\n# alice\n[Peer]\nPublicKey = {ALICE}\nAllowedIPs = 10.8.0.0/24\n")
    file = tmp_path / "split.rules"
    file.write_text("allow established related\nallow from red\nallow from black\n")
    words = ("--assembly", "vpn-split", "--rules", str(file), "--peers", str(conf))
    _, told = machine(
        "explain",
        "udp 10.1.0.5:1 > 10.8.0.2:53",
        "udp 10.1.0.5:1 > 192.0.2.7:53",
        "from black udp 192.0.2.9:53 > 10.1.0.5:1",
        "from black udp 10.8.0.9:53 > 10.1.0.5:1",
        *words,
    )
    assert [one["leaves"] for one in told] == ["tunnel", "black", "red", None]
    assert "belongs on another side" in told[3]["why"]
    code, told = machine("explain", "udp 10.1.0.5:1 > 192.0.2.7:53", "--assembly", "vpn-split", "--peers", str(conf))
    assert (code, told[0]["leaves"]) == (0, "black") and told[0]["at"].startswith(str(ASSEMBLIES)), "the assembly's own"


def test_a_bridge_translates_nothing(tmp_path: Path) -> None:
    file = tmp_path / "x.rules"
    file.write_text("allow from red\nnat from red to black -> 192.0.2.1\n")
    code, text = run("explain", "udp 10.1.0.5:1 > 192.0.2.7:53", "--assembly", "filter", "--rules", str(file))
    assert code == 2 and f"{file}:2:1: a bridge translates nothing" in text.replace("\n", " ")
