"""The errors of the protocol, with the codes and headers that clients decide by."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from starlette.responses import JSONResponse

if TYPE_CHECKING:
    from collections.abc import Mapping

# The client takes a 401 with this message for what it is, and any other for a missing repository.
INVALID_CREDENTIALS: Final = "Invalid credentials in Authorization header"
_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="Authentication required", charset="UTF-8"'}


class HubError(Exception):
    """An answer that is an error; `code` goes to X-Error-Code."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str = "",
        headers: dict[str, str] | None = None,
        *,
        body: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.headers = headers or {}
        self.body = body or {}  # what clients read beside the error

    def response(self) -> JSONResponse:
        """Return the error as a client reads it: JSON body, code and message in headers."""
        headers = {"X-Error-Message": _header_text(self.message), **self.headers}
        if self.code:
            headers["X-Error-Code"] = self.code
        return JSONResponse({"error": self.message, **self.body}, self.status, headers)


def repository_not_found() -> HubError:
    """Return the answer for what is absent or may not be seen: the two look the same."""
    return HubError(404, "Repository not found", "RepoNotFound")


def revision_not_found(revision: str) -> HubError:
    """Return the answer for an unknown branch, tag or commit."""
    return HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")


def entry_not_found(path: str, commit: str) -> HubError:
    """Return the answer for a missing file; with the commit the client remembers the absence."""
    return HubError(404, f"Entry not found: {path}", "EntryNotFound", {"X-Repo-Commit": commit})


def token_missing() -> HubError:
    """Return the answer to a request without a token, for anything that needs one."""
    return HubError(401, "Invalid username or password.", "RepoNotFound", _CHALLENGE)


def token_invalid() -> HubError:
    """Return the answer to a token that is unknown, expired or revoked."""
    return HubError(401, INVALID_CREDENTIALS, "", _CHALLENGE)


def gated(repository: str, message: str = "") -> HubError:
    """Return the answer for files that one must ask for first."""
    text = message or f"Access to {repository} is restricted. Ask for access to it first."
    return HubError(403, text, "GatedRepo")


def forbidden(message: str) -> HubError:
    """Return the answer to who may see a repository, and not do this; clients show the message."""
    return HubError(403, message)


def disabled(why: str = "") -> HubError:
    """Return the answer for files that are not sent now; clients know it by these very words.

    `why` is shown beside them: as a warning, and with the errors of the body.
    """
    headers = {"X-HF-Warning": f"disabled; {_header_text(why)}"} if why else {}
    body = {"errors": [{"message": why}]} if why else {}
    return HubError(403, "Access to this resource is disabled.", headers=headers, body=body)


def conflict(message: str) -> HubError:
    """Return the answer to making what is there already."""
    return HubError(409, message)


def unprocessable(message: str) -> HubError:
    """Return the answer to a change that cannot be made, however often it is tried."""
    return HubError(422, message)


def damaged() -> HubError:
    """Return the answer for content that is not there, or set aside as wrong.

    410, which clients show at once: what they get of a 5xx they ask for again and again.
    """
    return HubError(
        410,
        "The content of this file is damaged here: the operator must import it again, "
        "or whoever has it must upload it",
    )


def disk_full() -> HubError:
    """Return the answer where content does not fit: unlike other 5xx, clients do not repeat it."""
    return HubError(
        507,
        "The registry's disk is full. Nothing of this was kept; the operator must make room.",
        "InsufficientStorage",
    )


def is_disk_full(error: OSError) -> bool:
    """Tell whether the system refused to write for want of room, or of quota."""
    return error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def bad_request(message: str) -> HubError:
    """Return the answer to a request that cannot be understood."""
    return HubError(400, message, "BadRequest")


def _header_text(message: str) -> str:
    """Return text that a header can carry: printable ASCII, bounded."""
    return "".join(c if " " <= c <= "~" else "?" for c in message)[:512]
