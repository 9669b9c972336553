"""Requests of any method, address and body: none is an internal error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from conftest import World

WORDS = st.sampled_from(
    [
        *("o", "n", "main", "refs", "heads", "pr", "1", "x", "absent", "..", "", "%2e%2e", "%2f"),
        *("%00", "%ff", "refs%2Fpr%2F1", "a%20b", "refs%2Fheads%2Fmain"),
    ]
)
SUBJECTS = st.sampled_from(
    [
        *("preupload", "commit", "branch", "tag", "super-squash", "settings", "tree", "paths-info"),
        *("commits", "revision", "refs", "discussions", "lfs-files", "xet-write-token"),
    ]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 1 << 70)
    | st.sampled_from(["o", "n", "o/n", "main", "model", "public", "auto", "\0", "x" * 2000])
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
KEYS = st.sampled_from(
    [
        *("name", "organization", "type", "visibility", "private", "gated", "fromRepo", "toRepo"),
        *("startingPoint", "tag", "message", "files", "gitIgnore", "paths", "content", "expand"),
    ]
)
BODIES = st.dictionaries(KEYS, VALUES, max_size=5) | VALUES
PREFIXES = st.sampled_from(
    ["/api/models/o/n/", "/api/models/n/", "/api/datasets/o/n/", "/api/repos/", "/o/n/", "/"]
)
ADDRESSES = st.builds(
    lambda prefix, subject, rest, query: prefix + "/".join([subject, *rest]) + query,
    PREFIXES,
    SUBJECTS | st.sampled_from(["create", "delete", "move", "resolve"]),
    st.lists(WORDS, max_size=3),
    st.sampled_from(["", "?create_pr=1", "?expand=true", "?limit=x", "?cursor=%00"]),
)


@settings(
    max_examples=250,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    address=ADDRESSES,
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "PATCH"]),
    body=BODIES,
)
def test_no_request_is_an_internal_error(
    shared_hub: World, address: str, method: str, body: Any
) -> None:
    response = shared_hub.client.request(method, f"http://testserver{address}", json=body)
    assert response.status_code < 500, (method, address, body, response.text)
