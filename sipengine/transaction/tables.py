"""The four transaction machines as data (RFC 3261 figures 5 to 8, RFC 6026 §7, RFC 4320 §4).

`client` and `server` run on these tables, docs/state-machines.md is drawn from them.  A cell says next state, timer to
arm, and what is done; None: the event is absorbed, nothing changes and nobody hears of it.
"""

from __future__ import annotations

from sipengine.transaction.timers import NONE, RETRANSMIT, D, I, J, K, L, M

Step = tuple[int, int, int] | None
Table = tuple[tuple[Step, ...], ...]

PROVISIONAL, SUCCESS, FAILURE = range(3)
"""Classes of a response: received by a client, given by the user of a server."""

# further events of a client
REPEAT, GIVE_UP, EXPIRE, BROKEN = range(3, 7)
# further events of a server; its EXPIRE is the client's number
REQUEST, SLOW, ACKED, SILENT = 3, 4, 6, 7

# states of a client; a non-INVITE one is Trying where an INVITE one is Calling
CALLING, PROCEEDING, COMPLETED, ACCEPTED, TERMINATED = range(5)
TRYING = CALLING

# states of a server
S_TRYING, S_PROCEEDING, S_COMPLETED, S_CONFIRMED, S_ACCEPTED, S_TERMINATED = range(6)

# what is done
PASS = 1
"""The user gets the response."""
ACK = 2
"""An ACK of our own is sent."""
AGAIN = 4
"""What was sent last is sent again."""
TELL = 8
"""The user hears that there is no final answer."""
SEND = 16
"""The response is sent."""
KEEP = 32
"""The response is kept for a request that comes again."""
HUNDRED = 64
"""A 100 of our own is sent and kept."""

_OVER: Step = (TERMINATED, NONE, 0)
_FAIL: Step = (TERMINATED, NONE, TELL)

INVITE_CLIENT: Table = (
    # 1xx, 2xx, 3xx-6xx
    # timer A, timer B (and 64*T1 after CANCEL), timer D or M, transport error
    (  # Calling
        (PROCEEDING, NONE, PASS), (ACCEPTED, M, PASS), (COMPLETED, D, ACK | PASS),
        (CALLING, RETRANSMIT, AGAIN), _FAIL, None, _FAIL,
    ),
    (  # Proceeding
        (PROCEEDING, NONE, PASS), (ACCEPTED, M, PASS), (COMPLETED, D, ACK | PASS),
        None, _FAIL, None, _FAIL,
    ),
    (  # Completed: the ACK again
        None, None, (COMPLETED, NONE, AGAIN),
        None, None, _OVER, _OVER,
    ),
    (  # Accepted: every 2xx goes up, also of other forks
        None, (ACCEPTED, NONE, PASS), None,
        None, None, _OVER, None,
    ),
    (None, None, None, None, None, None, None),
)  # fmt: skip

NON_INVITE_CLIENT: Table = (
    # 1xx, 2xx, 3xx-6xx
    # timer E, timer F, timer K, transport error
    (  # Trying
        (PROCEEDING, NONE, PASS), (COMPLETED, K, PASS), (COMPLETED, K, PASS),
        (TRYING, RETRANSMIT, AGAIN), _FAIL, None, _FAIL,
    ),
    (  # Proceeding
        (PROCEEDING, NONE, PASS), (COMPLETED, K, PASS), (COMPLETED, K, PASS),
        (PROCEEDING, RETRANSMIT, AGAIN), _FAIL, None, _FAIL,
    ),
    (  # Completed
        None, None, None,
        None, None, _OVER, None,
    ),
    (None, None, None, None, None, None, None),  # Accepted, not entered
    (None, None, None, None, None, None, None),
)  # fmt: skip

_END: Step = (S_TERMINATED, NONE, 0)

INVITE_SERVER: Table = (
    # 1xx, 2xx, 3xx-6xx of the user
    # INVITE again, timer G, timer H I or L, ACK, user stays silent
    (  # Trying: the 100 has not left yet
        (S_PROCEEDING, NONE, SEND | KEEP), (S_ACCEPTED, L, SEND), (S_COMPLETED, RETRANSMIT, SEND | KEEP),
        None, None, None, None, (S_CONFIRMED, L, 0),
    ),
    (  # Proceeding
        (S_PROCEEDING, NONE, SEND | KEEP), (S_ACCEPTED, L, SEND), (S_COMPLETED, RETRANSMIT, SEND | KEEP),
        (S_PROCEEDING, NONE, AGAIN), None, None, None, (S_CONFIRMED, L, 0),
    ),
    (  # Completed
        None, None, None,
        (S_COMPLETED, NONE, AGAIN), (S_COMPLETED, RETRANSMIT, AGAIN), _END, (S_CONFIRMED, I, 0), None,
    ),
    (  # Confirmed: absorbs
        None, None, None,
        None, None, _END, None, None,
    ),
    (  # Accepted: the far UAS repeats its 2xx, we pass each on; the ACK is not ours
        None, (S_ACCEPTED, NONE, SEND), None,
        None, None, _END, None, None,
    ),
    (None, None, None, None, None, None, None, None),
)  # fmt: skip

NON_INVITE_SERVER: Table = (
    # 1xx, 2xx, 3xx-6xx of the user
    # request again, T1 to T2 without an answer (RFC 4320 §4.1), timer J, ACK, user stays silent (RFC 4320 §4.2)
    (  # Trying
        (S_PROCEEDING, NONE, SEND | KEEP), (S_COMPLETED, J, SEND | KEEP), (S_COMPLETED, J, SEND | KEEP),
        None, (S_PROCEEDING, NONE, HUNDRED), None, None, (S_CONFIRMED, L, 0),
    ),
    (  # Proceeding
        (S_PROCEEDING, NONE, SEND | KEEP), (S_COMPLETED, J, SEND | KEEP), (S_COMPLETED, J, SEND | KEEP),
        (S_PROCEEDING, NONE, AGAIN), None, None, None, (S_CONFIRMED, L, 0),
    ),
    (  # Completed
        None, None, None,
        (S_COMPLETED, NONE, AGAIN), None, _END, None, None,
    ),
    (  # Confirmed: nothing is said, what repeats is absorbed
        None, None, None,
        None, None, _END, None, None,
    ),
    (None, None, None, None, None, None, None, None),  # Accepted, not entered
    (None, None, None, None, None, None, None, None),
)  # fmt: skip
