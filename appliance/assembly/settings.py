"""A domain's settings as the domain will read them."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from appliance.assembly.addresses import address, endpoint
from appliance.assembly.keyfiles import encode
from appliance.assembly.model import Domain
from appliance.guest.secret import Secret


def _reveal(value: object) -> str:
    if isinstance(value, Secret):
        return encode(value.reveal())
    if hasattr(value, "isoformat"):
        # The one thing TOML has and JSON has not: a component that wants a date reads it as a text
        return str(value.isoformat())
    raise TypeError(f"{type(value).__name__} has no place in settings")


def serialise(settings: Mapping[str, object]) -> bytes:
    return json.dumps(settings, default=_reveal, sort_keys=True, allow_nan=False).encode()


def to_json(domain: Domain) -> bytes:
    """The settings of ``domain`` as JSON, keys in base64. Only the monitor calls this, and writes it where only the
    domain reads.
    """
    return serialise(dict(domain.settings))


def plain(settings: Mapping[str, object]) -> dict[str, object]:
    """``settings`` as they come out of the JSON at the other end: what the component's ``parse`` is tried on.

    ValueError if they hold what JSON does not: an infinite or undefined number.
    """
    parsed: dict[str, object] = json.loads(serialise(settings))
    return parsed


def resolved(domain: Domain, lookup: Callable[[str], str]) -> Domain:
    """``domain`` with an address in place of each host name that a setting named ``endpoint`` has.

    ``lookup`` gives an address for a name; what it raises goes through. A domain cannot resolve names: it has no
    network.
    """

    def walk(value: object) -> object:
        if isinstance(value, list):
            return [walk(item) for item in value]
        if not isinstance(value, dict):
            return value
        return {
            key: at(item) if key == "endpoint" and isinstance(item, str) else walk(item) for key, item in value.items()
        }

    def at(text: str) -> str:
        host, _, port = endpoint(text).rpartition(":")
        if host.startswith("[") or re.fullmatch(r"[0-9.]+", host):
            return text
        found = address(lookup(host))
        return f"[{found}]:{port}" if found.version == 6 else f"{found}:{port}"

    settings = walk(dict(domain.settings))
    assert isinstance(settings, dict)
    return dataclasses.replace(domain, settings=MappingProxyType(settings))
