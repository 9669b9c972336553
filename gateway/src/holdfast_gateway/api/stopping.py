"""What is said to those who are stopped: by a switch, or because their key ended."""

import time

from holdfast_gateway.api.errors import ApiError
from holdfast_trust.switches import Switch

PERMISSION = "permission_error"

_NAMED = {"team": "The team '{}'", "model": "The model '{}'"}


def stopped(switch: Switch) -> ApiError:
    """Return the 403 of what the operator stopped; only those who hold a valid key are told."""
    what = _NAMED.get(switch.kind, f"This {switch.kind}").format(switch.name)
    since = time.strftime("%Y-%m-%d %H:%M", time.gmtime(switch.since))
    why = f": {switch.reason}" if switch.reason else "."
    return ApiError(
        403,
        f"{what} was stopped by the operator at {since} UTC{why}",
        code="stopped",
        kind=PERMISSION,
    )


def key_ended(why: str) -> ApiError:
    """Return the 403 of a request whose key ended while it was being answered."""
    return ApiError(403, f"This answer was cut off: {why}.", code="key_ended", kind=PERMISSION)


def outside_hours() -> ApiError:
    """Return the 403 of an agent whose hours these are not."""
    return ApiError(
        403,
        "This agent may not act at this hour of the day (UTC); its operator set its hours.",
        code="outside_hours",
        kind=PERMISSION,
    )
