"""The labels of a box's domains, as Xen knows them: user:role:type."""

from __future__ import annotations


def kind(domain: str) -> str:
    """The type of a running domain in the policy; also the stem of the types that belong to it."""
    # Names are lower-case letters, digits and '_' (appliance.assembly.catalogue.NAME); what belongs to a type never
    # ends in _t
    return f"septum_{domain}_t"


def label(domain: str) -> str:
    """What stands in ``seclabel`` of its xl configuration: a running domain, whose memory nobody else may map."""
    return f"system_u:system_r:{kind(domain)}"


def building_label(domain: str) -> str:
    """What stands in ``init_seclabel``: a domain that is being built. Unpaused, it has its ``label`` and never this
    again."""
    return f"system_u:system_r:{kind(domain)}_building"
