"""What Prometheus reads of a server, and what it must not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from kimi_mcp.core import observing
from kimi_mcp.server.http import metrics
from kimi_mcp.server.http.auth.scopes import ADMIN, CALL
from kimi_mcp.server.http.auth.token_file import TokenFile, utc_now
from kimi_mcp.simulator import Simulator
from tests.server.http.served import Served, bearer, message, served
from tests.server.requests import HELD_STEP
from tests.server.test_tracing import attempt

K25 = {"provider": "simulator", "model": "kimi-k2.5"}


class Page:
    """The samples of a page."""

    def __init__(self, text: str) -> None:
        families = list(text_string_to_metric_families(text))
        self.samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float | None:
        """Of one sample; None: there is none."""
        return self.samples.get((f"kimi_{name}", frozenset(labels.items())))

    def labels(self, name: str) -> set[str]:
        """Every value of a label."""
        return {dict(labels)[name] for _, labels in self.samples if name in dict(labels)}


async def page_of(http: Served) -> Page:
    answer = await http.raw.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return Page(answer.text)


async def test_calls_tokens_and_costs_are_counted_once_they_have_ended(sim: Simulator) -> None:
    sim.play(HELD_STEP)
    async with served(sim, KIMI_REPLY_WITHIN_S="0.05") as http, http.client() as kimi:
        result = await kimi.think()
        assert result.status == "running"
        before = await page_of(http)
        assert before.value("calls_running") == 1
        assert before.value("calls_total", tool="kimi_think", status="completed") is None
        sim.open_gate("end")
        result = await kimi.ended(result)
        after = await page_of(http)
    assert after.value("calls_running") == after.value("upstream_waiting") == 0
    assert after.value("calls_total", tool="kimi_think", status="completed") == 1
    usage = result.structured["usage"]
    assert after.value("tokens_total", kind="input", **K25) == usage["prompt_tokens"]
    assert after.value("tokens_total", kind="output", **K25) == usage["completion_tokens"]
    assert after.value("cost_usd_total", provider="simulator") == pytest.approx(usage["cost_usd"], rel=0.01)
    assert after.value("upstream_attempts_total", result="ok", **K25) == 1
    assert after.value("time_to_first_chunk_seconds_count", **K25) == 1
    assert after.value("store_duration_seconds_count", operation="write")
    assert after.value("http_responses_total", status="200")


async def test_errors_are_counted_by_their_code_and_attempts_by_theirs(sim: Simulator) -> None:
    sim.play({"status": 503, "retry_after": 0}, {"match": {"text": "refused"}, "status": 401})
    async with served(sim) as http, http.client() as kimi:
        assert (await kimi.instant("again")).status == "completed"
        assert (await kimi.instant("refused")).code == "auth_failed"
        assert (await kimi.call("kimi_think", {})).code == "invalid_arguments"
        assert (await kimi.run("run_000000000000000000000000")).code == "run_not_found"
        page = await page_of(http)
    assert page.value("upstream_attempts_total", result="overloaded", **K25) == 1
    assert page.value("upstream_attempts_total", result="ok", **K25) == 1
    assert page.value("errors_total", tool="kimi_instant", code="auth_failed") == 1
    assert page.value("errors_total", tool="kimi_think", code="invalid_arguments") == 1
    assert page.value("errors_total", tool="kimi_run", code="run_not_found") == 1
    assert page.value("calls_total", tool="kimi_instant", status="failed") == 1


async def test_no_label_takes_what_a_client_chose(sim: Simulator) -> None:
    async with served(sim) as http:
        session = await http.session()
        for call in ({"name": "tool-0815"}, {"name": "kimi_instant", "arguments": {"prompt": "x", "model": "m-0815"}}):
            await http.post(message("tools/call", call), session)
        await http.raw.get("/no-such-path-0815")
        observing.emit(attempt("my/own-model-0815"))
        page = await page_of(http)
    assert not [each for each in page.samples if "0815" in str(each)]
    assert page.labels("model") == {"other"}
    assert page.labels("tool") >= {"unknown", "kimi_instant"}
    assert "principal" not in {name for _, labels in page.samples for name, _ in labels}


async def test_principals_are_labels_where_the_operator_wants_them(sim: Simulator) -> None:
    async with served(sim, KIMI_METRICS_PRINCIPALS="on") as http, http.client() as kimi:
        await kimi.instant()
        page = await page_of(http)
    assert page.value("calls_total", tool="kimi_instant", status="completed", principal="local") == 1
    assert page.value("tokens_total", kind="input", principal="local", **K25)
    assert page.value("cost_usd_total", provider="simulator", principal="local")


def test_only_so_many_principals_get_a_label_of_their_own() -> None:
    counted = metrics.Metrics(now={}, by_principal=True)
    for number in range(metrics.MOST_PRINCIPALS + 5):
        with observing.with_ids(principal=f"someone {number}"):
            counted.on_event(observing.CallEnded(tool="kimi_run", status="completed"))
    page = Page(counted.page("")[0].decode())
    assert len(page.labels("principal")) == metrics.MOST_PRINCIPALS + 1
    assert page.value("calls_total", tool="kimi_run", status="completed", principal="other") == 5


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"Host": "rebound.example"}, 421), ({"Origin": "https://page.example"}, 403), ({"Host": "localhost:1"}, 200)],
)
async def test_no_page_of_another_site_reads_them(headers: dict[str, Any], status: int) -> None:
    async with served(None) as http:
        assert (await http.raw.get("/metrics", headers=headers)).status_code == status


async def test_with_tokens_they_are_for_who_has_the_admin_scope(tmp_path: Path) -> None:
    tokens = TokenFile(tmp_path / "tokens.json")
    user, scraper = (tokens.add(scope[5:], (scope,), now=utc_now())[1] for scope in (CALL, ADMIN))
    async with served(None, KIMI_HTTP_TOKENS=str(tmp_path / "tokens.json")) as http:
        for token, status in (("", 401), (user, 403), (scraper, 200)):
            headers = {"Host": "10.1.2.3:8000", **bearer(token)}
            assert (await http.raw.get("/metrics", headers=headers)).status_code == status


async def test_openmetrics_is_had_by_who_asks_for_it() -> None:
    async with served(None) as http:
        answer = await http.raw.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")
