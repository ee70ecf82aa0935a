// The pure modules of the page, as Node runs them. test_scripts.py starts it.

import assert from "node:assert/strict";
import { test } from "node:test";

globalThis.self = { htm: { bind() {} }, preact: {}, preactHooks: {} };
const assets = new URL("../../../kimi_mcp/view/assets/", import.meta.url);
const { duration, localised, money, setLocale, when } = await import(new URL("format.js", assets));
const { uncoded } = await import(new URL("parts.js", assets));
const { filterQuery, isFiltered, listHref, readRoute, runHref } = await import(new URL("routes.js", assets));
const { NOTHING, secondsOf, withChange, withPage } = await import(new URL("runs.js", assets));

const NO_FILTERS = { status: [], tool: [], host: [], caller: [], day: "", q: "" };

function run(number, changed = {}) {
  const started_at = `2026-11-30T02:00:${String(number).padStart(2, "0")}.000+00:00`;
  return { run_id: `run_${number}`, status: "completed", seconds: 3, started_at, ...changed };
}

function ids({ runs }) {
  return runs.map(({ run_id }) => run_id);
}

const THREE = withPage(NOTHING, { runs: [run(9), run(7), run(5)], next: "cursor" });

test("a route of a run has its agent and its step", () => {
  const route = { page: "run", id: "run_1/a", agent: "agent-7", step: "agent-7/step 2" };
  assert.deepEqual(readRoute(runHref(route.id, route.agent, route.step)), route);
});

test("a hash that means nothing is the list without filters", () => {
  assert.deepEqual(readRoute("#/run"), { page: "list", filters: NO_FILTERS });
  assert.deepEqual(readRoute("#%%%"), { page: "list", filters: NO_FILTERS });
});

test("filters come back from the address of their list", () => {
  const filters = { ...NO_FILTERS, status: ["failed", "partial"], host: [""], day: "2026-11-30", q: "a&b=c #1" };
  assert.deepEqual(readRoute(listHref(filters)).filters, filters);
  assert.ok(isFiltered(filters));
  assert.ok(!isFiltered(NO_FILTERS));
  assert.equal(filterQuery(NO_FILTERS).toString(), "");
});

test("a page comes behind those before, without what is there already", () => {
  const loaded = withPage(THREE, { runs: [run(5), run(3)], next: null });
  assert.deepEqual(ids(loaded), ["run_9", "run_7", "run_5", "run_3"]);
  assert.equal(loaded.next, null);
});

test("a new run comes where its start puts it", () => {
  assert.deepEqual(ids(withChange(THREE, { changed: [run(8), run(11)] }, NO_FILTERS)), [
    "run_11", "run_9", "run_8", "run_7", "run_5",
  ]);
});

test("a run that is older than all that is loaded waits for its page", () => {
  assert.deepEqual(ids(withChange(THREE, { changed: [run(1)] }, NO_FILTERS)), ids(THREE));
  const all = { ...THREE, next: null };
  assert.deepEqual(ids(withChange(all, { changed: [run(1)] }, NO_FILTERS)), [...ids(THREE), "run_1"]);
});

test("a changed run is replaced where it is, and the others keep their identity", () => {
  const changed = withChange(THREE, { changed: [run(7, { status: "failed" })] }, NO_FILTERS);
  assert.deepEqual(ids(changed), ids(THREE));
  assert.equal(changed.runs[1].status, "failed");
  assert.equal(changed.runs[0], THREE.runs[0]);
});

test("a run leaves when it is gone, or when the filters show it no more", () => {
  const change = { changed: [run(7, { status: "failed" })], gone: ["run_5"] };
  assert.deepEqual(ids(withChange(THREE, change, { ...NO_FILTERS, status: ["completed"] })), ["run_9"]);
});

test("the seconds of a running run go on from when it came", () => {
  const [running] = withPage(NOTHING, { runs: [run(1, { status: "running" })], next: null }).runs;
  assert.equal(Math.round(secondsOf(running, running.receivedAt + 2000)), 5);
  assert.equal(secondsOf(run(1), 1e9), 3);
});

test("numbers are as long as they need to be", () => {
  assert.deepEqual([0.04, 12.34, 99.96, 125, 7380].map(duration), ["0.0 s", "12.3 s", "1 min 40 s", "2 min 05 s", "2 h 03 min"]);
  assert.deepEqual([null, 0, 0.00123, 12.3].map(money), ["–", "$0.00", "$0.0012", "$12.30"]);
  assert.equal(duration(null), "–");
});

test("a time of today is a clock, another one has its day, and one of another year its year", () => {
  const now = new Date(2026, 10, 30, 12);
  const [today, before, long] = [new Date(2026, 10, 30, 9, 5), new Date(2026, 10, 2, 9, 5), new Date(2024, 1, 2)];
  assert.match(when(today.toISOString(), now), /^0?9:05/);
  assert.match(when(before.toISOString(), now), /2.*9:05/);
  assert.match(when(long.toISOString(), now), /2024/);
  assert.equal(when(null), "–");
});

test("a text without elements has what stood between backticks, and keeps a single one", () => {
  assert.equal(uncoded("Set `KIMI_UI`, or run `kimi-mcp ui`."), "Set KIMI_UI, or run kimi-mcp ui.");
  assert.equal(uncoded("a ` of its own"), "a ` of its own");
  assert.equal(uncoded(null), "");
});

test("a sentence of the server has its sums and tokens in the reader's locale", () => {
  setLocale("de-DE");
  const shown = localised("20 running · about 1,628 tokens · 0.0060 USD of 2.00 USD · web_search “v2.5 tokens”");
  setLocale("en-US");
  assert.equal(shown.replaceAll("\u00a0", " "), "20 running · about 1.628 tokens · 0,006 $ of 2,00 $ · web_search “v2.5 tokens”");
  assert.equal(localised("thinking · 12 s"), "thinking · 12 s");
});
