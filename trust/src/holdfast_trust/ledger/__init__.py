"""The ledger: an append-only Merkle log of what was done, and the check of one.

with Ledger("/var/lib/holdfast/gateway/ledger") as ledger:
    entry = ledger.append({"action": "model.infer", ...})       # from threads
    entry = await ledger.append_async({...})                     # from a coroutine
report = verify("/var/lib/holdfast/gateway/ledger")
"""

from holdfast_trust.ledger.checkpoint import Checkpoint
from holdfast_trust.ledger.files import Entry, read
from holdfast_trust.ledger.verification import Finding, Report, verify
from holdfast_trust.ledger.writer import Ledger

__all__ = ["Checkpoint", "Entry", "Finding", "Ledger", "Report", "read", "verify"]
