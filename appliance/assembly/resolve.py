"""Host names of endpoints become addresses once, before the box is built: no domain can look one up."""

from __future__ import annotations

import dataclasses
import socket

from appliance.assembly.model import _PROOF, ValidatedAssembly
from appliance.assembly.settings import resolved


class ResolveError(Exception):
    """A host name that has no address; the text says which, and what to do."""


def _lookup(name: str) -> str:
    """The first address of ``name``, in the order of RFC 6724, as wg takes it."""
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_DGRAM)
    except OSError as error:
        raise ResolveError(
            f"endpoint {name}: {error.strerror or error}: give an address instead, or see to DNS"
        ) from None
    return str(found[0][4][0])


def resolve(assembly: ValidatedAssembly) -> ValidatedAssembly:
    """``assembly`` with an address in place of each endpoint's host name. Errors: ResolveError."""
    domains = tuple(resolved(domain, _lookup) for domain in assembly.domains)
    return dataclasses.replace(assembly, domains=domains, proof=_PROOF)
