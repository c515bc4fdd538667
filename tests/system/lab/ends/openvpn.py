"""OpenVPN with its best case for this comparison: UDP, ChaCha20-Poly1305, TLS between two self-signed certificates."""

from __future__ import annotations

import datetime
import subprocess
import tempfile
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ..conf import Conf
from ..namespace import LabError, run, stop, tool
from ..topology import Site
from .end import End, wait_for

INTERFACE = "ovpn0"


class Certificate:
    """A self-signed certificate and its key; the other end is told its fingerprint."""

    def __init__(self, name: str) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .sign(key, hashes.SHA256())
        )
        self.fingerprint = certificate.fingerprint(hashes.SHA256()).hex(":")
        self.certificate = certificate.public_bytes(serialization.Encoding.PEM)
        self.key = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


# One pair a process is enough: what is compared is speed, not trust.
_CERTIFICATES: dict[str, Certificate] = {}


def _certificate(name: str) -> Certificate:
    return _CERTIFICATES.setdefault(name, Certificate(name))


class OpenVpn(End):
    kind = "openvpn"

    def __init__(self, site: Site, conf: Conf) -> None:
        super().__init__(site, conf)
        self._process: subprocess.Popen[str] | None = None
        self._directory: tempfile.TemporaryDirectory[str] | None = None

    def start(self) -> None:
        other = 3 - self.site.number
        names = {1: "left", 2: "right"}
        own, peer = _certificate(self.site.name), _certificate(names[other])
        self._directory = tempfile.TemporaryDirectory(prefix="septum-openvpn-")
        directory = Path(self._directory.name)
        (directory / "cert").write_bytes(own.certificate)
        (directory / "key").touch(mode=0o600)
        (directory / "key").write_bytes(own.key)
        port = str(self.conf.listen_port)
        options = {
            "mode": "p2p", "dev": INTERFACE, "dev-type": "tun", "proto": "udp4",
            "local": self.site.wan4, "lport": port, "remote": f"203.0.113.{other} {port}",
            "cert": str(directory / "cert"), "key": str(directory / "key"), "peer-fingerprint": peer.fingerprint,
            "dh": "none", "cipher": "CHACHA20-POLY1305", "data-ciphers": "CHACHA20-POLY1305",
            "ifconfig": f"10.77.0.{self.site.number} 10.77.0.{other}",
            "tun-mtu": str(self.conf.mtu), "sndbuf": "2097152", "rcvbuf": "2097152", "verb": "1",
        }  # fmt: skip
        roles = ["--tls-server"] if self.site.number == 1 else ["--tls-client"]
        arguments = [word for key, value in options.items() for word in (f"--{key}", *value.split(" "))]
        with (directory / "log").open("w") as log:
            self._process = self.site.gateway.start(
                "openvpn", *arguments, *roles, "--disable-dco", stdout=log, stderr=subprocess.STDOUT
            )

        def up() -> bool:
            if self._process is not None and self._process.poll() is not None:
                raise LabError("openvpn ended:\n" + (directory / "log").read_text())
            return INTERFACE in self.site.gateway.run("ip", "-br", "link", "show", "up")

        wait_for("OpenVPN's interface", up, every=0.005)
        for network in (f"192.168.{other}.0/24", f"fd00:{other}::/64"):
            family = "-6" if ":" in network else "-4"
            self.site.gateway.run("ip", family, "route", "replace", network, "dev", INTERFACE)

    def stop(self) -> None:
        if self._process is not None:
            stop(self._process)
            self._process = None
        if self._directory is not None:
            self._directory.cleanup()
            self._directory = None

    def pids(self) -> list[int]:
        return [self._process.pid] if self._process else []

    @classmethod
    def version(cls) -> str:
        return run(tool("openvpn"), "--version", check=False).split()[1]
