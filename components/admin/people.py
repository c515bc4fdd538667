"""The administrators, as the signed roster has them: replayed here from the first statement, like everywhere else."""

from __future__ import annotations

import copy

from septum.v1 import configuring

from appliance.signed.refusal import Refusal
from appliance.signed.roster import Administrator, Roster, Trust
from appliance.signed.statements import Signed
from components.admin.holding import Holding, Lock
from components.admin.status import Code, RpcError


class People:
    """Who may call. ``trust`` is what the box was made with: until config answers, only the console is anybody."""

    def __init__(self, trust: Trust, holding: Holding) -> None:
        self._trust = trust
        self._holding = holding
        self._lock = Lock()
        self.roster = Roster(trust)
        self.is_known = not holding.is_there
        """Whether the roster was read at all."""

    def find(self, key: bytes) -> Administrator | None:
        """Who signs with ``key``, now."""
        return self.roster.holder(key)

    async def refresh(self) -> None:
        """Takes what config has taken since. Errors: RpcError."""
        async with self._lock:
            head = await self._holding.now()
            is_same = head.serial == self.roster.serial and bytes(head.roster_digest) == self.roster.digest
            if is_same and self.is_known:
                return
            # Whole or not at all: half a roster knows people whom the other half revokes. From the first, if an older
            # state of the store was put back
            is_behind = head.serial <= self.roster.serial or not self.is_known
            roster = Roster(self._trust) if is_behind else copy.deepcopy(self.roster)
            while roster.serial < head.serial:
                reply = await self._holding.statement(configuring.ROSTER, roster.serial + 1)
                try:
                    roster.take(Signed(bytes(reply.statement), bytes(reply.signature)), None)
                except Refusal as refusal:
                    self.is_known = False
                    raise RpcError(Code.DATA_LOSS, f"config's roster does not hold: {refusal}") from None
            self.roster = roster
            self.is_known = True
