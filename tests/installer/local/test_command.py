from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from holdfast_installer.bundle.signature import allowed_signers_path

HOLDFAST = Path(sys.executable).with_name("holdfast")
REPOSITORY = Path(__file__).parents[3]
# The bundle that `make quickstart` leaves, or any other that this operator may trust.
BUNDLE = Path(os.environ.get("HOLDFAST_TEST_BUNDLE", REPOSITORY / "build/quickstart/bundle"))


# Taken before any fixture ran: what others set for their own operators is not ours.
ENVIRONMENT = dict(os.environ)


def holdfast(*arguments: str | Path, seconds: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [HOLDFAST, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
        env=ENVIRONMENT,
    )


@pytest.mark.parametrize("verb", ["up", "down"])
def test_without_local_they_say_what_is_missing(verb: str) -> None:
    done = holdfast(verb)
    assert done.returncode == 2
    assert "--local" in done.stderr


def test_the_status_of_nothing_is_not_well(tmp_path: Path) -> None:
    done = holdfast("status", "--local", "--state", tmp_path / "state", "--json")
    assert done.returncode == 1
    seen = json.loads(done.stdout)
    assert seen["running"] is False
    assert {finding["name"] for finding in seen["not_shown"]} >= {"EGR-01", "DNS-01", "TEL-01"}
    assert not any(finding["verdict"] == "pass" for finding in seen["not_shown"])
    assert "holdfast up --local" in done.stderr


def test_stopping_nothing_is_done_at_once(tmp_path: Path) -> None:
    done = holdfast("down", "--local", "--state", tmp_path / "state", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["stopped"] is False
    assert not (tmp_path / "state").exists()


def write_site(folder: Path, teams: str = "research=ada") -> Path:
    site = folder / "site.yml"
    model = REPOSITORY / "model-registry/starter/holdfast-starter"
    done = holdfast(
        *("init", "--name", "here", "--domain", "here.internal", "--jurisdiction", "de"),
        *("--host", "local=127.0.0.1=control+serving=local"),
        *("--model", f"holdfast/starter={model}", "--team", teams, "--output", site),
    )
    assert done.returncode == 0, done.stderr
    return site


def test_a_bundle_that_is_not_there_is_named(tmp_path: Path) -> None:
    site = write_site(tmp_path)
    state = tmp_path / "state"
    done = holdfast("up", "--local", "--site", site, "--bundle", tmp_path / "no", "--state", state)
    assert done.returncode == 3
    assert str(tmp_path / "no") in done.stderr.replace("\n", "")
    assert "bundle build" in done.stderr


def test_a_site_where_nobody_may_call_anything_is_refused(tmp_path: Path) -> None:
    site = write_site(tmp_path)
    document = yaml.safe_load(site.read_text())
    document["models"][0]["teams"] = []
    site.write_text(yaml.safe_dump(document))
    done = holdfast("up", "--local", "--site", site, "--state", tmp_path / "state")
    assert done.returncode == 1
    assert "no model that a user may call" in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(
    not (BUNDLE / "manifest.json").exists() or not allowed_signers_path().exists(),
    reason=f"no bundle in {BUNDLE}: make quickstart builds one, HOLDFAST_TEST_BUNDLE names one",
)
def test_from_a_bundle_to_an_answer_and_back(tmp_path: Path) -> None:
    site, state = write_site(tmp_path), tmp_path / "state"
    up = ("up", "--local", "--site", site, "--bundle", BUNDLE, "--state", state, "--json")
    first = holdfast(*up, seconds=1500)
    try:
        assert first.returncode == 0, first.stderr
        made = json.loads(first.stdout)
        assert "Holdfast is a sovereign AI platform" in made["answer"]
        for command in ("hf_download", "curl_chat", "openai_client"):
            pasted = subprocess.run(
                ["/bin/sh", "-c", made[command]],
                env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
                capture_output=True,
                text=True,
                check=False,
            )
            assert pasted.returncode == 0, pasted.stderr
            if command != "hf_download":
                assert "sovereign AI platform" in pasted.stdout
        again = holdfast(*up)
        assert again.returncode == 0, again.stderr
        assert json.loads(again.stdout)["seconds"] < 30
        assert json.loads(again.stdout)["token"] == made["token"]
        assert holdfast("status", "--local", "--state", state).returncode == 0
    finally:
        down = holdfast("down", "--local", "--state", state, "--json", seconds=150)
    assert json.loads(down.stdout)["stopped"] is True
    for service in made["status"]["services"]:
        assert not Path(f"/proc/{service['pid']}").exists()
