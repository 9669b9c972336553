"""Signed addresses to upload to: clients send them no token, so they say who may put what where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from holdfast_hub_protocol import errors
from holdfast_hub_protocol.signing import BadSignatureError
from holdfast_hub_protocol.staging import AWAITED_SECONDS

if TYPE_CHECKING:
    from starlette.requests import Request

    from holdfast_hub_protocol.access import Caller
    from holdfast_hub_protocol.endpoints import Hub, RepositoryVisit

PURPOSE: Final = "lfs-upload"


@dataclass(frozen=True)
class Announced:
    """The content that an address was made for."""

    repository_key: int
    sha256: str
    size: int
    part_size: int  # 0: it comes in one piece

    @property
    def parts(self) -> int:
        """The number of parts."""
        return -(-self.size // self.part_size) if self.part_size else 1

    def part(self, number: int) -> tuple[int, int]:
        """Return where part `number` (from 1) begins, and its size."""
        first = (number - 1) * self.part_size
        return first, min(self.part_size, self.size - first)


def address(visit: RepositoryVisit, sha256: str, size: int, part_size: int) -> str:
    """Return the address to upload this content to: for a day, and while the token holds."""
    repository = visit.repository
    claims: dict[str, Any] = {
        "token": visit.caller.token_id,
        "repository": repository.key,
        "sha256": sha256,
        "size": size,
        "part": part_size,
    }
    token = visit.hub.signer.sign(PURPOSE, claims, AWAITED_SECONDS)
    return f"{visit.origin}/api/{repository.id.kind}s/{repository.id}/lfs-upload/{token}"


def identify(hub: Hub, request: Request) -> Caller:
    """Return who asked for the address of a request; HubError unless it and they still hold."""
    caller = hub.authenticator.recall(_claims(hub, request)["token"])
    if caller is None:
        raise errors.token_invalid()
    return caller


def announced(visit: RepositoryVisit) -> Announced:
    """Return what the address was made for; HubError if it was for another repository."""
    claims = _claims(visit.hub, visit.request)
    if claims["repository"] != visit.repository.key:
        raise errors.forbidden("This upload address is for another repository")
    visit.details |= {"sha256": claims["sha256"], "size": claims["size"]}
    return Announced(visit.repository.key, claims["sha256"], claims["size"], claims["part"])


def _claims(hub: Hub, request: Request) -> dict[str, Any]:
    try:
        return hub.signer.verify(PURPOSE, request.path_params["token"])
    except BadSignatureError as error:
        raise errors.forbidden(f"This upload address is not valid: {error}") from error
