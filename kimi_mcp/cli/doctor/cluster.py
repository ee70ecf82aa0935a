"""The checks of ``KIMI_CLUSTER=on``: what replicas need, and those that are there. Blocking I/O: reads the database."""

from __future__ import annotations

from kimi_mcp.cli.console import counted
from kimi_mcp.cli.doctor.diagnosis import Diagnosis
from kimi_mcp.core.errors import KimiError
from kimi_mcp.core.settings import Settings

CONNECTIONS = 8
"""That a replica has to PostgreSQL at most while it is idle; under load some more."""


def check_cluster(found: Diagnosis, settings: Settings) -> None:
    """Look at it, where it is on."""
    if settings.cluster == "off":
        return
    from kimi_mcp.cluster.overview import look
    from kimi_mcp.server.http import start_check

    try:
        start_check.check_cluster(settings)
        seen = look(settings.database_url)
    except KimiError as error:
        found.add_error("cluster", error)
        return
    living = [each for each in seen.replicas if each.status != "silent"]
    if not living:
        found.add("cluster", "ok", "No replica runs on that PostgreSQL yet: the first one makes what it needs there.")
    else:
        roles = ", ".join(sorted(f"{each.record.facts.get('host')} ({each.role}, {each.status})" for each in living))
        found.add("cluster", "ok", f"{counted(len(living), 'replica')} on that PostgreSQL: {roles}.")
    if living and all(each.role == "http" for each in living):
        message = "No replica takes jobs: each has --role http, so every swarm waits."
        found.add("cluster", "warn", message, "Start one with --role all or worker.")
    if living and all(each.status != "ready" for each in living):
        message = "No replica is ready: each was asked to drain."
        found.add("cluster", "warn", message, "Start another, or start one of them again.")
    versions = sorted({str(each.record.facts.get("version")) for each in living})
    if len(versions) > 1:
        message = f"Replicas of several versions run side by side: {', '.join(versions)}."
        found.add("cluster", "warn", message, "That is meant for an upgrade: let it come to its end.")
    in_use, most = seen.connections
    if most - in_use < CONNECTIONS:
        message = f"PostgreSQL has {in_use} of its {most} connections open: another replica may get none."
        found.add("cluster", "warn", message, "Raise its max_connections.")
    if settings.http_url is None:
        message = "KIMI_HTTP_URL is not set: through a balancer clients use a name that no replica accepts."
        found.add("cluster", "warn", message, "Set it to the URL that clients have, the same at every replica.")
