"""From bare hosts to an answered prompt, with no route out: what the quickstart's site must do."""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from quick_site import HOLDFAST, QUESTION, ROOT, STARTER, QuickSite, environment, quickstart

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(1800)]

CHAT = f"""
import json, openai, sys
client = openai.OpenAI(max_retries=0)
stream = client.chat.completions.create(
    model=sys.argv[1], stream=True, logprobs=True, temperature=0,
    messages=[{{"role": "user", "content": {QUESTION!r}}}],
    stream_options={{"include_usage": True}})
text, probabilities, usage = "", 0, None
for part in stream:
    usage = part.usage or usage
    for choice in part.choices:
        text += choice.delta.content or ""
        probabilities += len(choice.logprobs.content or []) if choice.logprobs else 0
print(json.dumps({{"text": text, "logprobs": probabilities, "tokens": usage.completion_tokens}}))
"""
ASK = f"""
import openai, sys
answer = openai.OpenAI(max_retries=0).chat.completions.create(
    model=sys.argv[1], temperature=0, messages=[{{"role": "user", "content": {QUESTION!r}}}])
print(answer.choices[0].message.content)
"""
STATUS = """
import openai, sys
try:
    openai.OpenAI(max_retries=0).chat.completions.create(
        model=sys.argv[1], messages=[{"role": "user", "content": "x"}])
except openai.APIStatusError as error:
    print(error.status_code, error.code)
"""
SNAPSHOT = """
import hashlib, huggingface_hub, json, pathlib, sys, tempfile
folder = pathlib.Path(huggingface_hub.snapshot_download(sys.argv[1], cache_dir=tempfile.mkdtemp()))
print(json.dumps({"commit": folder.name, "files": {
    str(path.relative_to(folder)): "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    for path in folder.rglob("*") if path.is_file()}}))
"""
EXISTS = """
import huggingface_hub, sys
from huggingface_hub.errors import RepositoryNotFoundError
try:
    huggingface_hub.HfApi().model_info(sys.argv[1]); print("seen")
except RepositoryNotFoundError as error:
    print("not found", error.response.status_code)
"""

PAGES = """
import httpx, os, ssl, sys
console, token, model = sys.argv[1:]
trusted = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])
with httpx.Client(base_url=console, verify=trusted, headers={"Origin": console}) as browser:
    browser.post("/sign-in", data={"token": token})
    card = browser.get(f"/models/{model}")
    print(card.status_code, "Holdfast" in card.text, "approved" in card.text)
"""


@pytest.fixture(scope="module")
def site() -> QuickSite:
    return quickstart()


@pytest.fixture
def mended(site: QuickSite, request: pytest.FixtureRequest) -> Iterator[QuickSite]:
    """Hand the site over to be damaged; apply the capability that mends it afterwards."""
    yield site
    site.apply("--capability", request.param)


def wait_for(what: Callable[[], bool], seconds: float) -> bool:
    """Ask again each second until it is so, or the time is over."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if what():
            return True
        time.sleep(1)
    return False


def vllm_unit(site: QuickSite, host: str) -> str:
    """Return the name of the one vLLM unit of a host."""
    listed = site.run(
        host, "systemctl", "list-units", "--plain", "--no-legend", "holdfast-vllm@*.service"
    )
    return listed.stdout.split()[0]


def test_each_printed_command_works_when_pasted(site: QuickSite) -> None:
    for name, expected in (
        ("hf_download", ""),
        ("curl_chat", "Holdfast"),
        ("openai_client", "Holdfast"),
    ):
        done = subprocess.run(
            ["bash", "-c", str(site.printed[name])],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            env=environment(),
            timeout=300,
        )
        assert done.returncode == 0, f"{site.printed[name]}\n{done.stdout}{done.stderr}"
        assert expected in done.stdout


def test_a_stream_with_logprobs_answers_from_the_starter_model(site: QuickSite) -> None:
    answer = json.loads(site.researcher(CHAT, STARTER).stdout)
    assert "Holdfast" in answer["text"]
    assert answer["logprobs"] == answer["tokens"] > 3


def test_a_snapshot_is_byte_for_byte_what_the_bundle_holds(site: QuickSite) -> None:
    manifest = json.loads((site.folder / "bundle/manifest.json").read_text())
    expected = {
        artifact["filename"]: artifact["digest"]
        for artifact in manifest["artifacts"]
        if artifact["kind"] == "model" and artifact["name"] == STARTER
    }
    commits = {
        artifact["version"] for artifact in manifest["artifacts"] if artifact["kind"] == "model"
    }
    taken = json.loads(site.researcher(SNAPSHOT, STARTER).stdout)
    assert taken["files"] == expected
    assert {taken["commit"]} == commits


def test_the_console_shows_the_model_to_whom_it_is_open(site: QuickSite) -> None:
    console = f"https://console.{site.domain}"
    assert site.researcher(PAGES, console, site.token, STARTER).stdout.split() == [
        "200", "True", "True",
    ]  # fmt: skip
    assert site.researcher(PAGES, console, "hft_wrong", STARTER).stdout.split()[0] == "303"


def test_strangers_are_turned_away(site: QuickSite) -> None:
    assert site.researcher(STATUS, STARTER, token="hft_wrong").stdout.split()[0] == "401"
    assert site.researcher(STATUS, "holdfast/absent").stdout.split() == ["404", "model_not_found"]


def test_another_teams_model_does_not_exist(site: QuickSite, tmp_path: Path) -> None:
    site.operator("user", "add", "eve")
    token = tmp_path / "token"
    site.operator("token", "issue", "eve", "--output", str(token))
    secret = token.read_text().strip()
    assert site.researcher(STATUS, STARTER, token=secret).stdout.split() == [
        "404",
        "model_not_found",
    ]
    assert site.researcher(EXISTS, STARTER, token=secret).stdout.split() == ["not", "found", "404"]
    assert site.researcher(EXISTS, STARTER).stdout.strip() == "seen"


def test_the_ledger_verifies(site: QuickSite) -> None:
    assert "ok:" in site.operator("ledger", "verify").stdout


def test_every_control_holds(site: QuickSite) -> None:
    verdicts = site.verdicts()
    assert set(verdicts.values()) == {"pass"}, verdicts
    assert {control for control, _ in verdicts} == {
        "EGR-01",
        "DNS-01",
        "TEL-01",
        "TLS-01",
        "INT-03",
    }


def test_a_second_apply_changes_nothing(site: QuickSite) -> None:
    changed = json.loads(site.apply().stdout)["changed"]
    assert changed == dict.fromkeys(("control-1", "serving-1", "serving-2"), 0)


def test_no_packet_is_meant_for_anywhere_outside(site: QuickSite, tmp_path: Path) -> None:
    with site.sealed(tmp_path / "serving.pcap", "--own-only"):
        site.apply()
        assert site.researcher(ASK, STARTER).stdout.strip()
    with site.sealed(tmp_path / "audit.pcap"):  # its probes aim at the canary
        site.verdicts()


@pytest.mark.parametrize("mended", ["egress"], indirect=True)
def test_flushed_rules_are_found(mended: QuickSite) -> None:
    mended.run("serving-1", "nft", "flush", "ruleset")
    verdicts = mended.verdicts("EGR-01", "DNS-01")
    assert verdicts["EGR-01", "serving-1"] == "fail"
    assert verdicts["DNS-01", "serving-1"] == "fail"
    assert verdicts["EGR-01", "serving-2"] == "pass"


@pytest.mark.parametrize("mended", ["egress"], indirect=True)
def test_an_ipv6_gap_is_found(mended: QuickSite) -> None:
    mended.run("serving-2", "nft", "insert", "rule", "inet", "holdfast", "egress",
               "meta", "nfproto", "ipv6", "accept")  # fmt: skip
    assert mended.verdicts("EGR-01")["EGR-01", "serving-2"] == "fail"


def test_a_plain_listener_is_found(site: QuickSite) -> None:
    unit = "holdfast-test-plain"
    site.run("control-1", "systemd-run", f"--unit={unit}",
               "/usr/bin/python3", "-m", "http.server", "8099")  # fmt: skip
    try:
        assert wait_for(lambda: site.verdicts("TLS-01")["TLS-01", "control-1"] == "fail", 15)
    finally:
        site.run("control-1", "systemctl", "stop", unit)
    assert site.verdicts("TLS-01")["TLS-01", "control-1"] == "pass"


def test_a_source_without_signature_is_found(site: QuickSite) -> None:
    source = "/etc/apt/sources.list.d/stranger.list"
    line = "deb [trusted=yes] file:/srv/stranger ./"
    site.run("serving-1", "sh", "-c", f"echo {shlex.quote(line)} > {source}")
    try:
        assert site.verdicts("INT-03")["INT-03", "serving-1"] == "fail"
    finally:
        site.run("serving-1", "rm", "-f", source)


@pytest.mark.parametrize("mended", ["vllm"], indirect=True)
def test_a_vllm_without_its_offline_switches_is_found(mended: QuickSite) -> None:
    unit = vllm_unit(mended, "serving-1")
    name = unit.partition("@")[2].removesuffix(".service")
    folder = "/etc/holdfast/vllm"
    mended.run(
        "serving-1",
        "sh",
        "-c",
        f"sed -i '/^HF_HUB_OFFLINE=/d; /^TRANSFORMERS_OFFLINE=/d' {folder}/{name}.env && "
        f"sed -i 's|^model: .*|model: {STARTER}|' {folder}/{name}.yml && "
        f"systemctl restart --no-block {unit}",
    )
    assert wait_for(lambda: mended.verdicts("TEL-01")["TEL-01", "serving-1"] == "fail", 180)


def test_a_killed_engine_comes_back_and_is_not_missed(site: QuickSite) -> None:
    unit = vllm_unit(site, "serving-1")
    site.run("serving-1", "systemctl", "kill", "--signal=KILL", unit)
    for _ in range(5):
        assert "Holdfast" in site.researcher(ASK, STARTER).stdout
    active = ("systemctl", "is-active", unit)
    assert wait_for(
        lambda: site.run("serving-1", *active, check=False).stdout.strip() == "active", 120
    )


def test_a_second_apply_at_the_same_time_is_refused(site: QuickSite) -> None:
    command = site.inside("operator", HOLDFAST, "apply", "--site", site.site_file)
    first = subprocess.Popen(
        [*command, "--bundle", site.bundle], cwd=ROOT, env=environment(), stderr=subprocess.DEVNULL
    )
    try:
        held = ("test", "-s", "/run/holdfast-apply.holder")
        assert wait_for(lambda: _lock_is_held(site), 90), held
        second = site.apply(check=False)
    finally:
        assert first.wait(timeout=600) == 0
    assert second.returncode == 3
    assert "apply-lock" in second.stderr
    assert f"process {first.pid}" in second.stderr or "held by root" in second.stderr


def _lock_is_held(site: QuickSite) -> bool:
    tried = site.run("control-1", "flock", "-n", "/run/holdfast-apply.lock", "true", check=False)
    return tried.returncode != 0
