// What the page of one run computes, as Node runs it: merged events, the axis, the critical path, pieces of a text.

import assert from "node:assert/strict";
import { test } from "node:test";

globalThis.self = { htm: { bind() {} }, preact: {}, preactHooks: {} };
const assets = new URL("../../../kimi_mcp/view/assets/", import.meta.url);
const { leadsTo, markdownPieces } = await import(new URL("markdown.js", assets));
const { codePoints, merge } = await import(new URL("merge.js", assets));
const { agentStates, axisLength, markEvery, waitedFor, waitedLongest } = await import(new URL("timeline.js", assets));

function step(key, start_s, end_s, state = "done") {
  return { key, kind: "request", label: key, start_s, end_s, state };
}

function lane(id, steps, more = {}) {
  return { id, name: id, status: "completed", critical: false, steps, ...more };
}

const VIEW = {
  run: { status: "running" },
  answer: "a𝒳",
  reasoning: null,
  seconds: 3,
  lanes: [lane("main", [step("main/1", 0, 2)]), lane("agent-2", [step("agent-2/1", 2, null, "unfinished")])],
};

test("a run's event replaces what it names, and nothing else", () => {
  const merged = merge(VIEW, "run", { run: { status: "completed" } });
  assert.equal(merged.run.status, "completed");
  assert.equal(merged.lanes, VIEW.lanes);
  assert.equal(VIEW.run.status, "running");
});

test("a text grows where its code points end", () => {
  const merged = merge(merge(VIEW, "text", { of: "answer", start: 2, text: "𝒴" }), "text", { of: "answer", start: 3, text: "z" });
  assert.equal(merged.answer, "a𝒳𝒴z");
  assert.equal(merge(VIEW, "text", { of: "reasoning", start: 0, text: "Hm" }).reasoning, "Hm");
});

test("a text that comes again is not there twice", () => {
  assert.equal(merge(VIEW, "text", { of: "answer", start: 1, text: "𝒳y" }).answer, "a𝒳y");
});

test("a text of which a piece is missing has to be loaded again", () => {
  assert.equal(merge(VIEW, "text", { of: "answer", start: 3, text: "z" }), null);
});

test("a lane gets its new and changed steps, and the others keep their identity", () => {
  const changed = { id: "agent-2", status: "completed", steps: [step("agent-2/1", 2, 4), step("agent-2/2", 5, null)] };
  const merged = merge(VIEW, "lanes", { lanes: [changed], seconds: 5 });
  assert.equal(merged.seconds, 5);
  assert.equal(merged.lanes[0], VIEW.lanes[0]);
  assert.deepEqual(merged.lanes[1].steps.map((each) => [each.key, each.end_s]), [["agent-2/1", 4], ["agent-2/2", null]]);
  assert.equal(merged.lanes[1].status, "completed");
  assert.equal(VIEW.lanes[1].steps.length, 1);
});

test("a new lane comes where its number puts it", () => {
  const merged = merge(VIEW, "lanes", { lanes: [lane("agent-10", []), lane("agent-1", [])] });
  assert.deepEqual(merged.lanes.map(({ id }) => id), ["main", "agent-1", "agent-2", "agent-10"]);
});

test("what arrives of a step grows from where its end is known, and else begins anew", () => {
  const arrived = (...events) => events.reduce((view, data) => merge(view, "step", data), VIEW).arriving;
  const first = { key: "agent-1/step-1", reasoning: { start: 0, text: "a𝒳" } };
  const more = { key: "agent-1/step-1", reasoning: { start: 2, text: "b" }, answer: { start: 7, text: "It" } };
  assert.deepEqual(arrived(first, more), {
    key: "agent-1/step-1", reasoning: { start: 0, end: 3, text: "a𝒳b" }, answer: { start: 7, end: 9, text: "It" },
  });
  const again = { key: "agent-1/step-1", reasoning: { start: 0, text: "c" } };
  assert.deepEqual(arrived(first, more, again).reasoning, { start: 0, end: 1, text: "c" });
  const next = { key: "agent-1/step-2", answer: { start: 0, text: "d" } };
  assert.deepEqual(arrived(first, more, next), { key: "agent-1/step-2", answer: { start: 0, end: 1, text: "d" } });
  assert.equal(VIEW.arriving, undefined);
});

test("an event that is not known changes nothing", () => {
  assert.equal(merge(VIEW, "weather", {}), VIEW);
});

test("code points are counted as the server does", () => {
  assert.deepEqual(["", "ab", "a𝒳b", "👩‍🚀", "\ud800a"].map(codePoints), ["", "ab", "a𝒳b", "👩‍🚀", "\ud800a"].map((text) => [...text].length));
});

test("the axis counts in round numbers", () => {
  assert.deepEqual([0.5, 20, 84, 170, 1200, 14400, 100000].map(markEvery), [0.1, 5, 20, 60, 300, 3600, 14400]);
});

test("the axis of a running run grows seldom, and that of another one ends with it", () => {
  assert.equal(axisLength(12, false, 50), 12);
  const first = axisLength(20, true);
  assert.ok(first > 20);
  assert.equal(axisLength(first - 1, true, first), first);
  assert.ok(axisLength(first + 1, true, first) > first + 1);
});

test("the run waited for the main agent and between its steps for the critical agents", () => {
  const lanes = [
    lane("main", [step("m1", 0, 4), step("m2", 10, 12)], { critical: true }),
    lane("agent-1", [step("a1", 4, 6), step("a2", 7, 9.5)], { critical: true }),
    lane("agent-2", [step("b1", 4, 5)]),
  ];
  const path = waitedFor(lanes, 12);
  assert.deepEqual(path.map((each) => [each.lane.id, each.start, each.end]), [["main", 0, 4], ["agent-1", 4, 9.5], ["main", 10, 12]]);
  assert.deepEqual(waitedLongest(path).map((each) => [each.lane.id, each.seconds]), [["main", 6], ["agent-1", 5.5]]);
});

test("what an agent of the critical path waited for its turn is a stretch of its own, and no work", () => {
  const lanes = [
    lane("main", [step("m1", 0, 4)], { critical: true }),
    lane("agent-1", [{ ...step("a1", 9, 12), waited_s: 5 }], { critical: true }),
  ];
  const path = waitedFor(lanes, 12);
  assert.deepEqual(path.map((each) => [each.lane.id, each.turn, each.start, each.end]), [
    ["main", false, 0, 4], ["agent-1", true, 4, 9], ["agent-1", false, 9, 12],
  ]);
  assert.deepEqual(waitedLongest(path).map((each) => each.seconds), [4, 3]);
});

test("stretches of the critical path never lie over one another", () => {
  const lanes = [
    lane("main", [step("m1", 0, 4)], { critical: true }),
    lane("agent-1", [step("a1", 3, null, "unfinished")], { critical: true }),
    lane("agent-2", [step("b1", 3, 9)], { critical: true }),
  ];
  const path = waitedFor(lanes, 20);
  for (const [at, stretch] of path.entries()) assert.ok(at === 0 || stretch.start >= path[at - 1].end);
  assert.equal(path.at(-1).end, 20);
});

test("agents are counted by their state, without the main agent", () => {
  const lanes = [lane("main", []), lane("agent-1", []), lane("agent-2", [], { status: "failed" }), lane("agent-3", [])];
  assert.deepEqual(agentStates(lanes), [["completed", 2], ["failed", 1]]);
});

test("a long text is cut between blocks, never within code, and its first pieces stay as it grows", () => {
  const text = `${"A paragraph of some words.\n\n".repeat(200)}\`\`\`\n${"code\n\nmore\n".repeat(900)}\`\`\`\n\n${"The end.\n\n".repeat(900)}`;
  const pieces = markdownPieces(text);
  assert.ok(pieces.length > 1);
  assert.equal(pieces.join(""), text);
  for (const piece of pieces) assert.equal((piece.match(/^```/gm) ?? []).length % 2, 0);
  assert.deepEqual(markdownPieces(`${text}More.\n\n`).slice(0, pieces.length - 1), pieces.slice(0, -1));
});

test("an address leads to a web page or a mailbox, or nowhere", () => {
  assert.deepEqual(leadsTo("HTTPS://One.Example/a b"), { href: "https://one.example/a%20b", where: "one.example" });
  assert.equal(leadsTo("mailto:a@b.example").where, "a@b.example");
  for (const address of ["javascript:alert(1)", " java\nscript:alert(1)", "data:text/html,x", "/ui", "//x.example", "vbscript:x", "blob:https://x.example/1", "file:///etc"]) {
    assert.equal(leadsTo(address), null, address);
  }
});
