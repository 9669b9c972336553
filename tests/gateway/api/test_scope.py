"""A token that may do less than its owner, at the gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml
from scripted_upstream import MODEL as SCRIPTED

from holdfast_gateway.access import Access, team_of
from holdfast_gateway.config import Labels, Model, Trust

if TYPE_CHECKING:
    from pathlib import Path

    from gateway_parts import RunningGateway

MODEL = Model(
    id="org/name",
    upstream="http://127.0.0.1:1",
    teams=("other", "research"),
    labels=Labels(jurisdiction="de", classification="internal"),
)


@pytest.mark.parametrize(
    ("bounds", "team"),
    [
        ({}, "other"),
        ({"verbs": ["infer"]}, "other"),
        ({"verbs": ["read", "infer"]}, "other"),
        ({"verbs": ["read"]}, None),
        ({"verbs": ["admin"]}, None),
        ({"repositories": ["org/name"]}, "other"),
        ({"repositories": ["Org/*"]}, "other"),
        ({"repositories": ["org/another"]}, None),
        ({"teams": ["research"]}, "research"),
        ({"teams": ["idle"]}, None),
        ({"teams": ["research"], "verbs": ["infer"], "repositories": ["org/*"]}, "research"),
    ],
)
async def test_what_a_token_is_bound_to_holds_for_asking_models(
    tmp_path: Path, bounds: dict[str, list[str]], team: str | None
) -> None:
    secret = "ada-has-a-secret-token-01"
    ada = {"name": "ada", "teams": ["research", "other"], "tokens": [{"secret": secret, **bounds}]}
    seed = tmp_path / "seed.yml"
    seed.write_text(yaml.safe_dump({"teams": ["idle"], "users": [ada]}))
    access = Access(Trust(database=f"sqlite:///{tmp_path}/trust.db", seed=seed))
    principal = await access.authenticate(f"Bearer {secret}")
    decision = access.may_infer(principal, MODEL.id, MODEL)
    assert decision.allowed is (team is not None), decision.reason
    assert not access.may_infer(principal, "org/absent", None).allowed
    if team is not None:
        assert team_of(principal, MODEL, None) == team
    access.close()


def test_the_client_names_the_team_that_pays(gateway: RunningGateway) -> None:
    body = {"model": SCRIPTED, "messages": [{"role": "user", "content": "x"}]}
    own = gateway.post(body, headers={"OpenAI-Organization": "research"})
    assert own.status_code == 200
    other = gateway.post(body, headers={"OpenAI-Organization": "press"})
    assert (other.status_code, other.json()["error"]["code"]) == (403, "not_your_team")
    assert gateway.rows(1)[0]["team"] == "research"
