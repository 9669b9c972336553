"""Bring the identity database to the users, teams, services and token files that the plan names."""

from __future__ import annotations

import json
import pwd
import subprocess
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: identities
short_description: Users, teams, services and the services' token files
description:
  - Runs the platform's own trust library once, as the account that owns the identity database.
  - Adds what is missing; a token whose file does not hold is issued anew.
  - Takes those out of their teams whom the plan named there before and names no longer. Members who
    came by a command stay, and nobody is removed from the database.
author: The Holdfast founders
options:
  python: {description: Interpreter of the platform's environment., type: path, required: true}
  account: {description: Account that owns database and ledger., type: str, required: true}
  database: {description: URL of the identity database., type: str, required: true}
  ledger: {description: Folder of the ledger., type: path, required: true}
  readers:
    description: Accounts that may read the database.
    type: list
    elements: str
    default: []
  teams:
    description: Teams with the users in them.
    type: list
    elements: dict
    default: []
    suboptions:
      name: {description: Team., type: str, required: true}
      users: {description: Users in it., type: list, elements: str, default: []}
  services:
    description: Services with their teams; each gets a token file.
    type: list
    elements: dict
    default: []
    suboptions:
      name: {description: Service., type: str, required: true}
      teams: {description: Teams it is in., type: list, elements: str, default: []}
  tokens: {description: Folder of the token files., type: path, required: true}
  token_max_hours:
    description: No token of a user, issued before or not, lives longer. Services are exempt.
    type: int
    required: true
"""

EXAMPLES = r"""
- name: Know who is who
  holdfast.platform.identities:
    python: /opt/holdfast/current/platform/bin/python
    account: holdfast-identity
    database: postgresql+psycopg:///holdfast_identity
    ledger: /var/lib/holdfast/identity/ledger
    tokens: /var/lib/holdfast/identity/tokens
    token_max_hours: 720
    teams:
      - name: research
        users: [ada]
"""

RETURN = r"""
told:
  description: Who leaves which team, for people.
  returned: always
  type: list
  elements: str
"""

PROGRAM = """
import json, sys
from pathlib import Path
from holdfast_trust import seed, token_file
from holdfast_trust.ledger import Ledger
from holdfast_trust.store import TrustStore

wanted = json.load(sys.stdin)
members = {}
for team in wanted["teams"]:
    for user in team["users"]:
        members.setdefault(user, []).append(team["name"])
everyone = seed.Seed(
    teams=tuple(team["name"] for team in wanted["teams"]),
    users=tuple(
        seed.SeedPrincipal(name=name, teams=tuple(teams)) for name, teams in members.items()
    ),
    services=tuple(seed.SeedPrincipal(**service) for service in wanted["services"]),
)
named = {(team["name"], user) for team in wanted["teams"] for user in team["users"]}
named |= {(team, each["name"]) for each in wanted["services"] for team in each["teams"]}
if wanted["check"]:
    store = TrustStore(wanted["database"])
    left, changed = store.members_to_leave(named), False
else:
    with Ledger(Path(wanted["ledger"])) as ledger:
        store = TrustStore(wanted["database"], ledger=ledger, actor="holdfast apply")
        changed = store.create_schema(tuple(wanted["readers"]))
        changed |= seed.apply(store, everyone)
        left = store.follow_site(named)
        changed |= store.bound_user_tokens(wanted["token_max_hours"] * 3600) > 0
        for service in wanted["services"]:
            path = Path(wanted["tokens"], service["name"])
            if not token_file.holds_valid(store, path, service["name"], "default"):
                with token_file.place(path) as place:
                    issued = store.issue_token(service["name"], "default", rotate=True)
                    place.keep(issued.secret)
                changed = True
store.close()
print(json.dumps({"changed": changed or bool(left), "left": left}))
"""


def main() -> None:
    """Run the module."""
    strings = {"type": "list", "elements": "str", "default": []}
    name = {"type": "str", "required": True}
    module = AnsibleModule(
        argument_spec={
            "python": {"type": "path", "required": True},
            "account": name,
            "database": name,
            "ledger": {"type": "path", "required": True},
            "readers": strings,
            "teams": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {"name": name, "users": strings},
            },
            "services": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {"name": name, "teams": strings},
            },
            "tokens": {"type": "path", "required": True, "no_log": False},
            "token_max_hours": {"type": "int", "required": True, "no_log": False},
        },
        supports_check_mode=True,
    )
    if module.check_mode and not Path(module.params["python"]).exists():
        module.exit_json(changed=True, told=[])  # nobody is there yet
    account = pwd.getpwnam(module.params["account"])
    done = subprocess.run(
        [module.params["python"], "-I", "-c", PROGRAM],
        input=json.dumps({**module.params, "check": module.check_mode}),
        capture_output=True,
        text=True,
        check=False,
        user=account.pw_uid,
        group=account.pw_gid,
        extra_groups=[],
        cwd="/",
        env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"},
    )
    if done.returncode and module.check_mode:
        # A database that is yet to be made, or of an older release: apply brings it up to date.
        module.exit_json(changed=True, told=[])
    if done.returncode:
        module.fail_json(msg=f"the identity database is as it was: {done.stderr.strip()[-1500:]}")
    answer = json.loads(done.stdout)
    verb = "would leave" if module.check_mode else "leaves"
    told = [
        f"{principal} {verb} the team {team}: the site no longer names them there"
        for team, principal in answer["left"]
    ]
    module.exit_json(changed=answer["changed"], told=told)


if __name__ == "__main__":
    main()
