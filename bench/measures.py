"""The measurements, as data: what each is called, its unit, which way is better, how it is taken."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.system.lab import End, Lab, LabError, first_echo, ping, pss_kib, tcp_mbit, udp_loss, wait_for
from tests.system.lab.traffic import IPERF_PORT

# Short runs and many rounds: the machine drifts more between two rounds than iperf3 or ping do within one
TCP_SECONDS = 2
PINGS = 500
PING_INTERVAL = 0.002  # seconds
PROBE_SECONDS = 1
LOSS = 0.01
RATES = (20_000, 160_000)  # packets a second: where the search begins, and where it ends
PROBES = 5


@dataclass(frozen=True)
class Scene:
    """One tunnel, up, with an iperf3 server behind its far end. The near end is the one whose memory counts."""

    lab: Lab
    near: End

    @property
    def address(self) -> str:
        return self.lab.right.host4


def tcp4(scene: Scene) -> dict[str, float]:
    return {"tcp4": tcp_mbit(scene.lab.left.host, scene.address, TCP_SECONDS, 4)}


def tcp_nic(scene: Scene) -> dict[str, float]:
    return {"tcp1_nic": tcp_mbit(scene.lab.left.host, scene.address, TCP_SECONDS)}


def udp64(scene: Scene) -> dict[str, float]:
    """The highest rate of 64-byte payloads that arrives with under 1 % loss: doubled until it fails, then bisected."""
    good, bad = 0.0, float(RATES[1])
    rate = float(RATES[0])
    for _ in range(PROBES):
        try:
            lost, sent = udp_loss(scene.lab.left.host, scene.address, PROBE_SECONDS, int(rate))
        except LabError:  # iperf3's own TCP connection got no word through the flood
            lost, sent = 1.0, rate
        if lost < LOSS:
            good = max(good, sent)
            if sent < rate * 0.9:
                break  # the sender itself cannot go faster
        else:
            bad = min(bad, rate)
        rate = min(rate * 2, bad) if bad == RATES[1] else (good + bad) / 2
    return {"udp64_pps": good}


def pings(scene: Scene) -> dict[str, float]:
    result = ping(scene.lab.left.host, scene.address, PINGS, PING_INTERVAL)
    return {"ping_median_us": result.median, "ping_p99_us": result.p99}


def loaded(scene: Scene) -> dict[str, float]:
    """Pings while one TCP stream takes all it can, and the memory of the near end meanwhile."""
    seconds = PINGS * PING_INTERVAL + 2
    host = scene.lab.left.host
    load = host.start("iperf3", "-c", scene.address, "-t", str(int(seconds) + 5))
    try:
        time.sleep(0.5)
        result = ping(host, scene.address, PINGS, PING_INTERVAL)
        memory = pss_kib(scene.near.pids()) / 1024
    finally:
        load.kill()
        load.wait()
    idle = f":{IPERF_PORT} "
    wait_for(
        "iperf3 to be idle again", lambda: idle not in scene.lab.right.host.run("ss", "-Htn", "state", "established")
    )
    return {"ping_loaded_p99_us": result.p99} | ({"pss_mb": memory} if memory else {})


@dataclass(frozen=True)
class Measure:
    name: str
    unit: str
    better: str  # "more" or "less"
    title: str


MEASURES = (
    Measure("tcp1", "Mbit/s", "more", "TCP, 1 stream"),
    Measure("tcp4", "Mbit/s", "more", "TCP, 4 streams"),
    Measure("tcp1_nic", "Mbit/s", "more", "TCP, no offloads"),
    Measure("udp64_pps", "1/s", "more", "64-byte UDP, 1 % loss"),
    Measure("ping_median_us", "µs", "less", "ping, median"),
    Measure("ping_p99_us", "µs", "less", "ping, p99"),
    Measure("ping_loaded_p99_us", "µs", "less", "ping under TCP, p99"),
    Measure("pss_mb", "MiB", "less", "memory under load"),
    Measure("first_packet_s", "s", "less", "start to first echo"),
)

Taken = Callable[[Scene], dict[str, float]]
WITH_OFFLOADS: tuple[Taken, ...] = (pings, tcp4, loaded, udp64)  # and before them Domains.tcp
WITHOUT_OFFLOADS: tuple[Taken, ...] = (tcp_nic,)


def first_packet(lab: Lab, near: End, far: End) -> float:
    """Seconds from the start of the near end to the first echo through it; the far end is up. Leaves both running.

    An end is asked for the first time when its start returns. Asking sooner would measure for how long the host behind
    it does not try again for its gateway, which one that moves the interface into itself hides for a moment.
    """
    far.start()
    began = time.monotonic()
    near.start()
    if not first_echo(lab.left.host, lab.right.host4, 20):
        raise LabError(f"{near.kind}: no echo within 20 s of its start")
    return time.monotonic() - began


__all__ = ["MEASURES", "TCP_SECONDS", "WITHOUT_OFFLOADS", "WITH_OFFLOADS", "Measure", "Scene", "first_packet"]
