"""Hashes against the reference values of xet-core, and of a real client's xorb."""

from __future__ import annotations

import pytest

from holdfast_hub_protocol.xet import hashing
from holdfast_hub_protocol.xet.errors import XetError

# From the tests of huggingface/xet-core, merklehash/aggregated_hashes.rs.
A = ("cfc5d07f6f03c29bbf424132963fe08d19a37d5757aaf520bf08119f05cd56d6", 100)
B = ("c3e67584b5c4fc2a89837ec39e40f2c8a6bb0b2987ac94cd4b31e5fbdd210a72", 200)
C = ("0d2beb91b9196929a5ddec9f6e306924ddf4a24268e3e59fd8464738d525af37", 300)
D = ("adf8773496a9b7319b2e50dc98093f344053b17d8ad37100b9c07d9805988784", 400)
ZERO = ("0" * 64, 0)
REFERENCE = [
    ([], "0" * 64, "0" * 64),
    ([ZERO], "0" * 64, "638a6bc391964a85939d48f008e8bdbae6a7975e7ca2d87a3ce2492f4e4d8a4c"),
    ([A], A[0], "8e16257caa3fe079d484d872a8975264b2ff683b0d6db9028cc7c0f968a45661"),
    (
        [A, B, C],
        "71ec1275fca074724e2dd666921b3277c7cee603e4d025bcab2d4050015be2bc",
        "54e55dccc6653c612bdb5576c5d3cb34bb31bc4e100248abccf4c908b3ef7715",
    ),
    (
        [A, A, A, A],
        "89f2ada89ff8c96763c6b25010e6dd76a4c05b1466207633ea559acf2093211b",
        "2cdba690d0e09563596e0cda626d43eb4c96ef1e994fe72d9b2f5a83cfcd36dd",
    ),
    (
        [A, B, A, B],
        "90f8313ef12df385d237a067aded02562c35ded12116e32eba401dbc86c38031",
        "284ea045e5a579e99c21ec597c20de1fc0c09e7168162aac00db8f61b3d82dbb",
    ),
    (
        [A, B, A, B, C, D],
        "52c826f99507aa05d0b45e9837fa1709e0485425cfbcb1e80db3905cf98b3ee9",
        "91d21684db364c8883ab8209fa5eb2e781cf07f37e1fa43e731c30839afe422f",
    ),
    (
        [ZERO, A, ZERO, A],
        "e1755c85be07fd6b7a8d7becc85e6d8c5f507f2a3d38b316bcb6f97855e72188",
        "207caf24fce045ac6d873b4c6186a5a435d600d103e1ae345e55ddf1f4b7f7ef",
    ),
]


@pytest.mark.parametrize(("chunks", "xorb", "file"), REFERENCE)
def test_trees_have_the_reference_hashes(
    chunks: list[tuple[str, int]], xorb: str, file: str
) -> None:
    nodes = [(hashing.from_hex(digest), length) for digest, length in chunks]
    assert hashing.to_hex(hashing.xorb_hash(nodes)) == xorb
    assert hashing.to_hex(hashing.file_hash(nodes)) == file


def test_hex_is_that_of_little_endian_words() -> None:
    text = "07060504030201000f0e0d0c0b0a0908171615141312111" + "01f1e1d1c1b1a1918"
    assert hashing.to_hex(bytes(range(32))) == text
    assert hashing.from_hex(text) == bytes(range(32))


@pytest.mark.parametrize("text", ["", "0" * 63, "0" * 65, "g" * 64, "A" * 64, "0" * 63 + "\n"])
def test_what_is_no_hash_is_refused(text: str) -> None:
    with pytest.raises(XetError):
        hashing.from_hex(text)
