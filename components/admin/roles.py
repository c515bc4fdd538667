"""Which role may call what: data. What is not in it cannot be called.

``ANYBODY`` needs no certificate. The box does not rest on this table: what changes it is signed by an administrator and
looked at again by the domains that it concerns. The table keeps what the box knows from who need not know it.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class Need(IntEnum):
    """The least that a caller must be; as appliance.signed.statements.Role, and nobody below it."""

    ANYBODY = 0
    VIEWER = 1
    OPERATOR = 2
    SECURITY_OFFICER = 3

    def __str__(self) -> str:
        return self.name.lower().replace("_", "-")


_SERVICES: Final = {
    "septum.admin.v1.Box": {
        "GetVersion": Need.VIEWER,
        "GetStatus": Need.VIEWER,
        "WatchStatus": Need.VIEWER,
        "RestartDomain": Need.OPERATOR,
    },
    "septum.admin.v1.Peers": {"ListPeers": Need.VIEWER, "GetPeer": Need.VIEWER},
    "septum.admin.v1.Keys": {"GetKeys": Need.VIEWER},
    "septum.admin.v1.Rules": {
        "GetRules": Need.VIEWER,
        "GetCounters": Need.VIEWER,
        # Tells whether a flow lives that the caller can name: so seldom that none is found by trying
        "ExplainPacket": Need.VIEWER,
        "DiffRules": Need.VIEWER,
    },
    "septum.admin.v1.Configuration": {
        "GetHead": Need.VIEWER,
        "ListHistory": Need.VIEWER,
        "Download": Need.VIEWER,
        # A commit needs an operator's signature, a statement of the roster a security officer's: config sees to that
        "Submit": Need.OPERATOR,
    },
    "septum.admin.v1.Audit": {"QueryLog": Need.OPERATOR, "FollowLog": Need.OPERATOR},
    "septum.admin.v1.Enrollment": {"WhoAmI": Need.ANYBODY, "Enroll": Need.ANYBODY, "Renew": Need.VIEWER},
    "grpc.health.v1.Health": {"Check": Need.ANYBODY, "Watch": Need.ANYBODY, "List": Need.ANYBODY},
    # What the service looks like is in the sources of a program that anybody can have
    "grpc.reflection.v1.ServerReflection": {"ServerReflectionInfo": Need.ANYBODY},
    "grpc.reflection.v1alpha.ServerReflection": {"ServerReflectionInfo": Need.ANYBODY},
}

NEEDS: Final = {f"/{service}/{call}": need for service, calls in _SERVICES.items() for call, need in calls.items()}
"""Path of a call -> the least that may make it."""
