from __future__ import annotations

import socket

from holdfast_installer.local import ports

NONE_OF_OURS = frozenset[int]()


def test_a_port_that_is_taken_is_replaced_and_a_free_one_is_kept() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        busy = int(taken.getsockname()[1])
        chosen = ports.choose(["registry", "gateway"], {"registry": busy}, NONE_OF_OURS)
        assert chosen["registry"] != busy
        assert chosen["registry"] != chosen["gateway"]
    again = ports.choose(["registry", "gateway"], chosen, NONE_OF_OURS)
    assert again == chosen


def test_what_our_own_services_listen_on_is_kept() -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = int(held.getsockname()[1])
        chosen = ports.choose(["vllm-a--b"], {"vllm-a--b": port}, frozenset({port}))
    assert chosen == {"vllm-a--b": port}


def test_two_replicas_never_share_a_port() -> None:
    names = [f"vllm-model--{number}" for number in range(30)]
    chosen = ports.choose(names, {}, NONE_OF_OURS)
    assert len(set(chosen.values())) == len(names)
