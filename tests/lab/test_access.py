"""Tokens on a running site: what they are bound to, and how soon they end."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest
from quick_site import STARTER, QuickSite, quickstart

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(1800)]

# Asks both services again and again; prints when each said 401 for the first time.
WATCH = """
import json, os, sys, time, urllib.error, urllib.request
token = os.environ["HF_TOKEN"]
places = {"hub": os.environ["HF_ENDPOINT"] + "/api/whoami-v2",
          "api": os.environ["OPENAI_BASE_URL"] + "/models"}
refused, answered = {}, {name: 0 for name in places}
deadline = time.time() + 60
while len(refused) < len(places) and time.time() < deadline:
    for name, place in places.items():
        asked = urllib.request.Request(place, headers={"Authorization": f"Bearer {token}"})
        try:
            urllib.request.urlopen(asked, timeout=10).read()
            answered[name] += 1
        except urllib.error.HTTPError as error:
            if error.code == 401:
                refused.setdefault(name, time.time())
    time.sleep(0.02)
print(json.dumps({"refused": refused, "answered": answered}))
"""
STATUS = """
import os, sys, urllib.error, urllib.request, json
def status(place, body=None):
    headers = {"Authorization": "Bearer " + os.environ["HF_TOKEN"],
               "Content-Type": "application/json"}
    asked = urllib.request.Request(place, data=body, headers=headers)
    try:
        return urllib.request.urlopen(asked, timeout=120).status
    except urllib.error.HTTPError as error:
        return error.code
wish = {"model": sys.argv[1], "max_tokens": 1, "messages": [{"role": "user", "content": "x"}]}
print(status(os.environ["HF_ENDPOINT"] + "/api/models/" + sys.argv[1]),
      status(os.environ["OPENAI_BASE_URL"] + "/chat/completions", json.dumps(wish).encode()))
"""
# Streams again and again until one is stopped; prints when, and how much of it had come.
STREAM = """
import json, os, sys, time, urllib.error, urllib.request
headers = {"Authorization": "Bearer " + os.environ["HF_TOKEN"], "Content-Type": "application/json"}
wish = {"model": sys.argv[1], "max_tokens": 400, "stream": True, "ignore_eos": True,
        "messages": [{"role": "user", "content": "x"}]}
code, whole, deadline = None, 0, time.time() + 60
while code is None and time.time() < deadline:
    asked = urllib.request.Request(os.environ["OPENAI_BASE_URL"] + "/chat/completions",
                                   data=json.dumps(wish).encode(), headers=headers)
    events = 0
    try:
        for line in urllib.request.urlopen(asked, timeout=60):
            events += line.startswith(b"data: {")
            if b'"error"' in line:
                code = json.loads(line[6:])["error"]["code"]
            whole += line.startswith(b"data: [DONE]")
    except urllib.error.HTTPError as error:
        code = json.loads(error.read())["error"]["code"]
print(json.dumps({"code": code, "at": time.time(), "whole": whole, "events": events}))
"""


@pytest.fixture(scope="module")
def site() -> QuickSite:
    return quickstart()


def issue(site: QuickSite, name: str, *options: str) -> dict[str, Any]:
    done = site.operator("token", "issue", "ada", "--name", name, "--rotate", *options, "--json")
    issued: dict[str, Any] = json.loads(done.stdout)
    return issued


def test_a_revoked_token_is_refused_within_a_second_by_hub_and_gateway(site: QuickSite) -> None:
    issued = issue(site, "watched")
    seen: list[str] = []

    def watch() -> None:
        seen.append(site.researcher(WATCH, token=issued["token"]).stdout)

    watcher = threading.Thread(target=watch)
    watcher.start()
    time.sleep(3)
    site.operator("token", "revoke", issued["token_id"])
    revoked = time.time()  # the hosts of a lab have this machine's clock
    watcher.join()
    told = json.loads(seen[0])
    assert all(told["answered"].values()), "both services took it before"
    assert set(told["refused"]) == {"hub", "api"}
    assert all(when - revoked < 1 for when in told["refused"].values()), (revoked, told)


def test_one_order_ends_what_an_agent_has_in_flight(site: QuickSite) -> None:
    name = f"scout-{int(time.time())}"
    words = ("--for", "ada", "--hours-to-live", "1", "--model", STARTER, "--json")
    made = json.loads(site.operator("agent", "create", name, *words).stdout)
    seen: list[str] = []

    def stream() -> None:
        seen.append(site.researcher(STREAM, STARTER, token=made["token"]).stdout)

    streaming = threading.Thread(target=stream)
    streaming.start()
    time.sleep(4)
    site.operator("kill", "agent", name, "--reason", "a test")
    done = time.time()
    streaming.join()
    told = json.loads(seen[0])
    assert told["code"] == "stopped"
    assert told["events"] or told["whole"], "it was at work before"
    assert told["at"] - done < 1, told
    assert site.researcher(STATUS, STARTER, token=made["token"]).stdout.strip() == "401 403"
    site.operator("kill", "lift", "agent", name)
    assert site.researcher(STATUS, STARTER, token=made["token"]).stdout.strip() == "404 200"
    site.operator("agent", "end", name)
    assert site.researcher(STATUS, STARTER, token=made["token"]).stdout.strip() == "401 401"


@pytest.mark.parametrize(
    ("name", "bounds", "expected"),
    [
        ("reads", ("--verb", "read"), "200 404"),
        ("infers", ("--verb", "infer"), "404 200"),
        ("elsewhere", ("--repo", "somebody/else"), "404 404"),
        ("both", ("--verb", "read", "--verb", "infer", "--repo", STARTER), "200 200"),
    ],
)
def test_a_token_does_what_it_was_issued_for(
    site: QuickSite, name: str, bounds: tuple[str, ...], expected: str
) -> None:
    issued = issue(site, name, *bounds)
    assert site.researcher(STATUS, STARTER, token=issued["token"]).stdout.strip() == expected
    site.operator("token", "revoke", issued["token_id"])


def test_who_came_by_a_command_stays_when_the_site_is_applied(site: QuickSite) -> None:
    team = json.loads(site.operator("team", "list", "--json").stdout)
    name = next(each["name"] for each in team if "ada" in each["members"])
    site.operator("user", "add", "visitor", "--team", name)
    site.apply("--capability", "identity")
    after = json.loads(site.operator("team", "list", "--json").stdout)
    members = next(each["members"] for each in after if each["name"] == name)
    assert {"ada", "visitor"} <= set(members)
    site.operator("team", "member", "remove", name, "visitor")
