"""A routing class of one's own for `test_seed_codec`: hides From as the account says, and for one account To as well.

The Contact passes, as at the seed: a hidden one is ours alone to read.
"""

from __future__ import annotations

from typing import Any

from trunkmgr.sip.routing import TrunkRouting


class HidesTo(TrunkRouting):
    async def request_route(self, context: Any) -> None:
        context.uac_replace_from("sip:anonymous@anonymous.invalid")
        if context.rU == "both":
            context.uac_replace_to("sip:line@pbx.example")
        context.record_route()
        if self.uac_reg_lookup("$rU", "$ru") and self.lookup("location"):
            context.t_relay()
        else:
            context.sl_send_reply(404, "Not Found")
