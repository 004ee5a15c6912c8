"""The rights of the database role that pages and workers use (trust.md findings 10 and 11).

It reads everything, writes what is not the record, and appends to the record through functions that check. It owns
nothing, so it can neither take a trigger away nor give itself a right.
"""

from __future__ import annotations

from django.db import connection
from psycopg import sql

APPEND_ONLY = (
    "upgrades_runevent",
    "upgrades_registerentry",
    "upgrades_checkpointleaf",
    "upgrades_checkpoint",
)
# Written once by the application, never changed.
WRITTEN_ONCE = (
    "upgrades_procedureversion",
    "upgrades_evidence",
    "upgrades_commandreceipt",
    "upgrades_runbinding",
)
NEVER_DELETED = ("upgrades_run",)
READ_ONLY = ("django_migrations",)
# What the role must not have. TRUNCATE and TRIGGER it has nowhere; for these tables preflight asks for them too.
WITHHELD = {
    **dict.fromkeys((*APPEND_ONLY, *READ_ONLY), ("INSERT", "UPDATE", "DELETE")),
    **dict.fromkeys(WRITTEN_ONCE, ("UPDATE", "DELETE")),
    **dict.fromkeys(NEVER_DELETED, ("DELETE",)),
}
APPENDING = (
    "append_run_events(bigint, integer, text[], text[])",
    "append_register(text, text, bigint, text, text)",
    "append_checkpoint(integer, bigint, timestamptz, text, text[], integer[], text[])",
)


def restrict(role: str, password: str | None = None) -> bool:
    """Give `role` exactly the rights of the application; True when the role was made for it. Call after each migrate.

    Needs the owner of the tables; to make the role, CREATEROLE too. Done again, it changes nothing.
    """
    name = sql.Identifier(role)
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role])
        is_new = cursor.fetchone() is None
        if is_new:
            cursor.execute(sql.SQL("CREATE ROLE {} LOGIN").format(name))
        if password:
            cursor.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(name, sql.Literal(password)))
        for statement in _statements():
            cursor.execute(sql.SQL(statement).format(role=name, database=_database()))
    return is_new


def _database() -> sql.Identifier:
    return sql.Identifier(str(connection.settings_dict["NAME"]))


def _statements() -> list[str]:
    return [
        "REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {role}",
        "REVOKE ALL ON ALL SEQUENCES IN SCHEMA public FROM {role}",
        # Nobody but the owner makes objects here: none can stand in front of ours on a search path.
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
        "REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC",
        "GRANT CONNECT ON DATABASE {database} TO {role}",
        "GRANT USAGE ON SCHEMA public TO {role}",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}",
        "GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO {role}",
        *(f"REVOKE {', '.join(rights)} ON {table} FROM {{role}}" for table, rights in WITHHELD.items()),
        *(f"GRANT EXECUTE ON FUNCTION {function} TO {{role}}" for function in APPENDING),
    ]
