"""``kimi-mcp cluster``: replicas, what each runs, and the queues; empties one. I/O: the database; prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from kimi_mcp.cli.commands.arguments import read_environment
from kimi_mcp.cli.commands.tokens import InJson
from kimi_mcp.cli.console import Printer, counted, print_json

if TYPE_CHECKING:
    from kimi_mcp.cluster.overview import Overview, ServerView

_STATES = {"ready": "ok", "draining": "warn", "drained": "quiet", "silent": "bad"}


def cluster(context: typer.Context, as_json: InJson = False) -> None:
    """Show the replicas of a cluster, what each runs, and its queues.

    Reads the database of KIMI_DATABASE_URL, and joins nothing.
    """
    if context.invoked_subcommand is not None:
        if as_json:
            raise typer.BadParameter(f"put --json behind the command: kimi-mcp cluster {context.invoked_subcommand} …")
        return
    from kimi_mcp.cluster.overview import look

    found = look(read_environment().database_url)
    if as_json:
        print_json(_as_json(found))
    else:
        _show(found)


def drain(
    server: Annotated[
        str, typer.Argument(metavar="ID", help="The replica: its id, the beginning of that, or its host's name.")
    ],
    as_json: InJson = False,
) -> None:
    """Drain a replica.

    It returns its jobs, is not ready any more and takes no more calls; those that it has end in their own time.
    It stays until it is stopped; started again, it takes calls and jobs.
    """
    from kimi_mcp.cluster.overview import request_drain

    found = request_drain(read_environment().database_url, server)
    if as_json:
        print_json({"id": found.record.id, "jobs": len(found.jobs), "calls": found.calls})
        return
    has = f"{counted(len(found.jobs), 'job')} and {counted(found.calls, 'call')}"
    page = Printer(indent=0)
    page.line(f"{found.record.id} is asked to drain: it has {has}. `kimi-mcp cluster` shows when it is drained.")


def _show(found: Overview) -> None:
    page = Printer()
    if not found.replicas:
        page.heading("No replica")
        page.row("", "Start some: `kimi-mcp serve --transport http` with KIMI_CLUSTER=on and this KIMI_DATABASE_URL.")
    else:
        silent = sum(each.status == "silent" for each in found.replicas)
        page.heading(f"{counted(len(found.replicas) - silent, 'replica')}", f"{silent} silent" if silent else "")
        head = ("ID", "STATE", "ROLE", "CALLS", "JOBS", "HEARD", "UP", "VERSION", "HOST")
        page.table(head, [_row(each) for each in found.replicas], right=(3, 4, 5, 6), optional=(7, 6), cut_last=True)
    if others := len(found.servers) - len(found.replicas):
        page.row("beside", f"{counted(others, 'server')} of another kind on this database", "quiet")
    page.line()
    page.heading("Queues")
    queues = [
        (f"{each.kind}s", str(each.queued), str(each.running), _span(each.waits_s) if each.queued else "")
        for each in found.queues
    ]
    page.table(("JOBS", "WAITING", "RUNNING", "OLDEST WAITS"), queues, right=(1, 2, 3))
    swarms = [job for job in found.jobs if job.kind == "swarm"]
    if swarms:
        page.line()
        page.heading("Swarms")
        rows = [
            (
                f"name|{job.id}",
                (job.server or "").removeprefix("srv_") if job.status == "running" else "quiet|waits",
                str(found.agents_of(job.id, "running")),
                str(found.agents_of(job.id, "queued")),
                _span(job.age_s),
            )
            for job in swarms
        ]
        page.table(("RUN", "MAIN AGENT AT", "RUN", "WAIT", "SINCE"), rows, right=(2, 3, 4), optional=(1,))


def _row(server: ServerView) -> tuple[str, ...]:
    facts = server.record.facts
    return (
        f"name|{server.record.id}",
        f"{_STATES[server.status]}|{server.status}",
        str(server.role),
        str(server.calls),
        str(len(server.jobs)),
        f"{server.record.heard_of_s:.1f} s",
        _span(server.record.lived_s),
        str(facts.get("version", "")),
        str(facts.get("host", "")),
    )


def _span(seconds: float) -> str:
    """A duration in its largest unit."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _as_json(found: Overview) -> dict[str, Any]:
    in_use, most = found.connections
    return {
        "replicas": [
            {
                "id": each.record.id,
                "status": each.status,
                "role": each.role,
                "version": each.record.facts.get("version"),
                "host": each.record.facts.get("host"),
                "heard_of_s": round(each.record.heard_of_s, 3),
                "up_s": round(each.record.lived_s, 3),
                "calls": each.calls,
                "jobs": [job.id for job in each.jobs],
            }
            for each in found.replicas
        ],
        "other_servers": [each.record.id for each in found.servers if each.role is None],
        "queues": [
            {
                "jobs": each.kind,
                "waiting": each.queued,
                "running": each.running,
                "oldest_waits_s": round(each.waits_s, 3),
            }
            for each in found.queues
        ],
        "swarms": [
            {
                "run_id": job.id,
                "status": job.status,
                "main_agent_at": job.server if job.status == "running" else None,
                "agents_running": found.agents_of(job.id, "running"),
                "agents_waiting": found.agents_of(job.id, "queued"),
                "attempts": job.attempts,
                "since_s": round(job.age_s, 3),
            }
            for job in found.jobs
            if job.kind == "swarm"
        ],
        "connections": {"open": in_use, "most": most},
    }
