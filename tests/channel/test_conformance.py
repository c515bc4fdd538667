"""The transport that is under test, through the conformance suite."""

from __future__ import annotations

from tests.channel.conformance import Conformance
from tests.channel.transports import transport


class TestTransport(Conformance):
    transport = transport()
