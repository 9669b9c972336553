"""What to upload, and where: `/{id}.git/info/lfs/objects/batch`; and whether it came: `verify`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from starlette.responses import JSONResponse

from holdfast_hub_protocol import errors
from holdfast_hub_protocol.identifiers import is_sha256
from holdfast_hub_protocol.lfs.addresses import address
from holdfast_hub_protocol.quotas import readable

if TYPE_CHECKING:
    from starlette.responses import Response

    from holdfast_hub_protocol.endpoints import RepositoryVisit

MAX_OBJECTS: Final = 1000  # clients ask for 256
MAX_SIZE: Final = 1 << 50
# In one piece it is hashed while it comes; in parts only what failed is sent again.
IN_PARTS_FROM: Final = 4 << 30
SMALLEST_PART: Final = 256 << 20
MAX_PARTS: Final = 4096
_MEDIA_TYPE: Final = "application/vnd.git-lfs+json"


def batch(visit: RepositoryVisit) -> Response:
    """Answer with the address to upload each object to; without one if it is here already."""
    document = visit.json()
    if document.get("operation") != "upload":
        raise errors.bad_request('"operation" must be "upload"; read files by resolve')
    transfers = document.get("transfers", ["basic"])
    in_parts = isinstance(transfers, list) and "multipart" in transfers
    sizes = _objects(document)
    staging = visit.hub.staging
    usable = staging.usable_of(visit.caller, visit.repository, sizes)
    # From now on it waits for its commit like what was uploaded: gc leaves it alone.
    present = staging.stage_all(visit.repository.key, {digest: sizes[digest] for digest in usable})
    missing = {digest: size for digest, size in sizes.items() if digest not in present}
    check_space(visit, sum(missing.values()))
    staging.reserve(visit.repository, missing)
    visit.details |= {
        "objects": len(sizes),
        "uploads": len(missing),
        "bytes": sum(missing.values()),
    }
    objects = [_answer(visit, digest, size, in_parts=in_parts) for digest, size in missing.items()]
    objects += [{"oid": digest, "size": sizes[digest]} for digest in present]
    multipart = any("header" in each["actions"]["upload"] for each in objects if "actions" in each)
    return JSONResponse(
        {
            # Never xet: older clients do as this says, newer ones do not ask.
            "transfer": "multipart" if multipart else "basic",
            "objects": objects,
            "hash_algo": "sha256",
        },
        media_type=_MEDIA_TYPE,
    )


def verify(visit: RepositoryVisit) -> Response:
    """Answer 200 if the object is here for this repository."""
    document = visit.json()
    digest, size = _object(document)
    if not visit.hub.staging.usable(visit.caller, visit.repository, digest, size):
        raise errors.HubError(404, f"No object {digest} of {size} bytes was uploaded here")
    return JSONResponse({"oid": digest, "size": size}, media_type=_MEDIA_TYPE)


def check_space(visit: RepositoryVisit, size: int) -> None:
    """Refuse at once what the disk cannot take: 507, which clients do not try again."""
    free = visit.hub.blobs.free_bytes()
    if free is not None and size > free:
        raise errors.HubError(
            507,
            f"The registry's disk has {readable(free)} left, {readable(size)} are needed. "
            "Nothing was uploaded; the operator must make room.",
            "InsufficientStorage",
        )


def _answer(visit: RepositoryVisit, digest: str, size: int, *, in_parts: bool) -> dict[str, Any]:
    part_size = _part_size(size) if in_parts else 0
    href = address(visit, digest, size, part_size)
    upload: dict[str, Any] = {"href": href}
    if part_size:
        count = -(-size // part_size)
        upload["header"] = {
            "chunk_size": str(part_size),
            **{str(number): f"{href}/{number}" for number in range(1, count + 1)},
        }
    kind, name = visit.repository.id.kind, visit.repository.id
    prefix = "" if kind == "model" else f"/{kind}s"
    verify_href = f"{visit.origin}{prefix}/{name}.git/info/lfs/objects/verify"
    return {
        "oid": digest,
        "size": size,
        "actions": {"upload": upload, "verify": {"href": verify_href}},
    }


def _part_size(size: int) -> int:
    """Return the size of all parts but the last; 0 for content that comes in one piece."""
    if size < IN_PARTS_FROM:
        return 0
    whole_mebibytes = -(-size // MAX_PARTS) + (1 << 20) - 1 >> 20 << 20
    return max(SMALLEST_PART, whole_mebibytes)


def _objects(document: dict[str, Any]) -> dict[str, int]:
    objects = document.get("objects")
    if document.get("hash_algo", "sha256") != "sha256":
        raise errors.bad_request('"hash_algo" must be sha256')
    if not isinstance(objects, list) or len(objects) > MAX_OBJECTS:
        raise errors.bad_request(f'"objects" must be a list of at most {MAX_OBJECTS}')
    sizes: dict[str, int] = {}
    for each in objects:
        digest, size = _object(each)
        if sizes.setdefault(digest, size) != size:
            raise errors.bad_request(f"two sizes for {digest}")
    return sizes


def _object(document: object) -> tuple[str, int]:
    if isinstance(document, dict):
        digest, size = document.get("oid"), document.get("size")
        if (
            isinstance(digest, str)
            and is_sha256(digest)
            and type(size) is int
            and 0 <= size <= MAX_SIZE
        ):
            return digest, size
    raise errors.bad_request('an object needs "oid", 64 lower-case hex digits, and "size"')
