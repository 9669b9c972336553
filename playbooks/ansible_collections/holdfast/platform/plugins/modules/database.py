"""PostgreSQL roles and databases for services that log in as themselves over the local socket."""

from __future__ import annotations

import os
import pwd
import subprocess
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: database
short_description: Databases, their owners and their readers
description:
  - Roles are named after the system accounts: peer authentication needs no map or password.
author: The Holdfast founders
options:
  databases:
    description: What to have.
    type: list
    elements: dict
    required: true
    suboptions:
      name: {description: Database., type: str, required: true}
      owner: {description: Account that owns it and its tables., type: str, required: true}
      readers:
        description: Accounts that may read every table of the owner, present and to come.
        type: list
        elements: str
        default: []
"""

EXAMPLES = r"""
- name: Make the databases
  holdfast.platform.database:
    databases:
      - name: holdfast_registry
        owner: holdfast-registry
"""

RETURN = r"""
statements:
  description: What was, or would be, executed.
  returned: always
  type: list
  elements: str
"""


def quoted(name: str) -> str:
    """Return a name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


class Cluster:
    """The local cluster, spoken to as its superuser."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.statements: list[str] = []
        self.account = pwd.getpwnam("postgres")

    def query(self, database: str, sql: str) -> list[str]:
        """Return the lines that a statement answers."""
        done = subprocess.run(
            [
                "psql",
                "--no-psqlrc",
                "--quiet",
                "--tuples-only",
                "--no-align",
                "--set",
                "ON_ERROR_STOP=1",
                "--dbname",
                database,
                "--command",
                sql,
            ],
            capture_output=True,
            text=True,
            check=False,
            user=self.account.pw_uid,
            group=self.account.pw_gid,
            extra_groups=os.getgrouplist("postgres", self.account.pw_gid),
            cwd="/",
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
        )
        if done.returncode:
            self.module.fail_json(
                msg=f"psql {database}: {done.stderr.strip()}\n{sql}", statements=self.statements
            )
        return done.stdout.split("\n")[:-1]

    def execute(self, database: str, sql: str) -> None:
        """Run a statement that changes something, or only note it in check mode."""
        self.statements.append(sql)
        if not self.module.check_mode:
            self.query(database, sql)

    def converge(self, databases: list[dict[str, Any]]) -> None:
        """Make what is missing."""
        roles = set(self.query("postgres", "select rolname from pg_roles"))
        names = set(self.query("postgres", "select datname from pg_database"))
        wanted = {role for item in databases for role in (item["owner"], *item["readers"])}
        for role in sorted(wanted - roles):
            self.execute("postgres", f"create role {quoted(role)} login")
        for item in databases:
            if item["name"] not in names:
                self.execute(
                    "postgres",
                    f"create database {quoted(item['name'])} owner {quoted(item['owner'])}",
                )
                self.execute(
                    "postgres", f"revoke all on database {quoted(item['name'])} from public"
                )
                if self.module.check_mode:
                    continue
            for reader in item["readers"]:
                self.let_read(item["name"], item["owner"], reader)

    def let_read(self, database: str, owner: str, reader: str) -> None:
        """Let a role read every table of the owner, present and to come."""
        name = reader.replace("'", "''")
        allowed = self.query(
            database,
            f"select has_database_privilege('{name}', current_database(), 'connect') and exists ("  # noqa: S608 - names come from the plan, quoted
            "select from pg_default_acl, aclexplode(defaclacl) as acl "
            "join pg_roles on pg_roles.oid = acl.grantee "
            f"where rolname = '{name}' and privilege_type = 'SELECT')",
        )
        if allowed == ["t"]:
            return
        for sql in (
            f"grant connect on database {quoted(database)} to {quoted(reader)}",
            f"grant usage on schema public to {quoted(reader)}",
            f"grant select on all tables in schema public to {quoted(reader)}",
            (
                f"alter default privileges for role {quoted(owner)} in schema public "
                f"grant select on tables to {quoted(reader)}"
            ),
        ):
            self.execute(database, sql)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "databases": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "owner": {"type": "str", "required": True},
                    "readers": {"type": "list", "elements": "str", "default": []},
                },
            },
        },
        supports_check_mode=True,
    )
    try:
        cluster = Cluster(module)
    except KeyError:
        if module.check_mode:
            module.exit_json(changed=True, statements=[])
        module.fail_json(msg="PostgreSQL is not installed; does base_system run first?")
    cluster.converge(module.params["databases"])
    module.exit_json(changed=bool(cluster.statements), statements=cluster.statements)


if __name__ == "__main__":
    main()
