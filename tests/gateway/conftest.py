from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from gateway_parts import RunningGateway, run_gateway
from scripted_upstream import ScriptedUpstream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def shared_upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as running:
        yield running


@pytest.fixture(scope="module")
def shared_gateway(
    tmp_path_factory: pytest.TempPathFactory, shared_upstream: ScriptedUpstream
) -> Iterator[RunningGateway]:
    with run_gateway(tmp_path_factory.mktemp("gateway"), shared_upstream.url) as running:
        yield running


@pytest.fixture
def upstream(shared_upstream: ScriptedUpstream) -> ScriptedUpstream:
    shared_upstream.requests.clear()
    return shared_upstream


@pytest.fixture
def gateway(shared_gateway: RunningGateway, upstream: ScriptedUpstream) -> RunningGateway:
    """Return a gateway that runs for the module; rows and events are those since now."""
    assert upstream.active == 0
    shared_gateway.look_from_now()
    return shared_gateway


@pytest.fixture
def own_gateway(tmp_path: Path, upstream: ScriptedUpstream) -> Iterator[RunningGateway]:
    """Return a gateway that the test may end."""
    with run_gateway(tmp_path / "gateway", upstream.url) as running:
        yield running
