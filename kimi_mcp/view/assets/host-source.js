// The source inside a host that shows MCP Apps: the iframe's side of its protocol (2026-01-26), over postMessage.

import { setLocale } from "./format.js";

/** The version of the protocol that is spoken here. */
const HOST_PROTOCOL = "2026-01-26";

/** Keys of a result's `_meta`: the view of its run, and the caller's latest runs. */
const HOST_VIEW = "kimi-mcp/view";
const HOST_RUNS = "kimi-mcp/runs";

/** Seconds that one call waits for the end of the run at least, and at most where the host or the server is slow. */
const SHORT_LOOK = 1;
const LONG_LOOK = 20;

/** How much of the time is spent on calls, beside the waiting for the run, at most. */
const LOOKING_SHARE = 0.1;

/** How long after a failed call the next one is made, in ms; doubled each time up to the last. */
const FIRST_PAUSE = 1000;
const LAST_PAUSE = 30000;

/** How long a call may take without its run being sought, in ms: most calls are over by then. */
const SEEK_AFTER = 1500;

/**
 * The source of a document that a host shows with the result of a call. The host passes results on; whether the run
 * goes on is seen by calling `kimi_run` through the host.
 * @returns {import("./source.js").Source}
 */
export function hostSource() {
  const host = hostBridge(window.parent);
  const listeners = new Set();
  /** Known of the call: its tool and the beginning of its prompt. */
  const call = { tool: "", prompt: "" };
  const can = { list: false, cancel: false, step: false };
  let latest = null;
  let view = null;
  let next = { work: null, timer: 0, pause: FIRST_PAUSE };
  let wait = SHORT_LOOK;
  let ended = false;

  const tell = (news) => {
    latest = { ...latest, ...news };
    for (const report of [...listeners]) report(news);
  };

  /** Do something later, and again, ever later, as long as it fails. There is one such thing at a time. */
  const later = (work, after) => {
    stop();
    const mine = (next = { work, timer: 0, pause: FIRST_PAUSE });
    const attempt = async () => {
      if (document.hidden || ended || next !== mine) return;
      try {
        await work();
        mine.work = null;
      } catch {
        if (next !== mine) return;
        tell({ offline: view !== null });
        mine.timer = setTimeout(attempt, mine.pause);
        mine.pause = Math.min(2 * mine.pause, LAST_PAUSE);
      }
    };
    mine.timer = setTimeout(attempt, after);
  };

  const stop = () => {
    clearTimeout(next.timer);
    next = { work: null, timer: 0, pause: FIRST_PAUSE };
  };

  const kimiRun = (given) => host.request("tools/call", { name: "kimi_run", arguments: given });

  /** A result of the call itself, or of `kimi_run` later on. */
  const take = (result) => {
    const shown = viewOfResult(result);
    if (!shown && view) return;
    stop();
    if (!shown) {
      tell({ error: failureOfResult(result) });
      return;
    }
    view = shown;
    tell({ view, error: null, offline: false });
    if (view.run.status === "running" && can.cancel) later(() => follow(view.run.run_id), 0);
  };

  const follow = async (id) => {
    const begin = performance.now();
    const result = await kimiRun({ run_id: id, action: "wait", wait_s: wait });
    if (!viewOfResult(result)) throw failureOfResult(result);
    const spent = (performance.now() - begin) / 1000 - wait;
    wait = Math.min(LONG_LOOK, Math.max(SHORT_LOOK, Math.round(spent / LOOKING_SHARE)));
    if (!ended && (view === null || view.run.run_id === id)) take(result);
  };

  /** Look among the caller's latest runs for that of a call that has no result yet, so that it is seen as it runs. */
  const seek = async () => {
    const found = ((await kimiRun({}))._meta?.[HOST_RUNS] ?? []).find(
      (run) => run.status === "running" && run.tool === call.tool && call.prompt.startsWith(inOneLine(run.prompt)),
    );
    if (view || ended) return;
    if (!found) throw { code: "run_not_found", message: "It has not begun.", fix: "" };
    await follow(found.run_id);
  };

  const adapt = (context) => {
    const root = document.documentElement;
    if (context.theme === "light" || context.theme === "dark") root.dataset.theme = context.theme;
    if (typeof context.locale === "string") setLocale(context.locale, context.timeZone);
    if (typeof context.toolInfo?.tool?.name === "string") call.tool = context.toolInfo.tool.name;
  };

  document.documentElement.dataset.framed = "";
  host.on("ping", () => ({}));
  host.on("ui/notifications/host-context-changed", adapt);
  host.on("ui/notifications/tool-result", take);
  host.on("ui/notifications/tool-input", ({ arguments: given }) => {
    call.prompt = inOneLine(given?.prompt);
    if (can.cancel && call.prompt && !view) later(seek, SEEK_AFTER);
  });
  host.on("ui/notifications/tool-cancelled", () => {
    if (view) return;
    stop();
    tell({ error: { code: "cancelled", message: "The call was cancelled.", fix: "" } });
  });
  host.on("ui/resource-teardown", () => {
    ended = true;
    stop();
  });

  const greet = async () => {
    const hello = await host.request("ui/initialize", {
      protocolVersion: HOST_PROTOCOL,
      appInfo: { name: "kimi-mcp", version: "1" },
      appCapabilities: { availableDisplayModes: ["inline", "fullscreen"] },
    });
    const offered = hello.hostCapabilities ?? {};
    can.cancel = Boolean(offered.serverTools);
    can.step = Boolean(offered.serverResources);
    adapt(hello.hostContext ?? {});
    addEventListener("click", (event) => followLink(event, offered.openLinks && host));
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden && next.work) later(next.work, 0);
    });
    host.notify("ui/notifications/initialized", {});
    reportSize(host);
  };
  greet().catch((failure) => tell({ error: failure }));

  return {
    can,
    only: "the run of this call",
    framed: true,
    run: async () => view,
    onRun(id, report) {
      listeners.add(report);
      if (latest) report(latest);
      return () => listeners.delete(report);
    },
    async step(id, key) {
      const uri = `kimi://runs/${view.run.run_id}/steps/${encodeURIComponent(key)}`;
      const { contents } = await host.request("resources/read", { uri });
      return JSON.parse(contents[0].text);
    },
    async cancel(id) {
      const result = await kimiRun({ run_id: id, action: "cancel" });
      if (!viewOfResult(result)) throw failureOfResult(result);
      take(result);
    },
  };
}

/**
 * JSON-RPC with the window around this one, and with no other: requests, notifications, and what answers the host's.
 * @param {Window} parent
 */
function hostBridge(parent) {
  const open = new Map();
  const handlers = new Map();
  let last = 0;
  // Who embeds this document has its source and its data: there is no other origin to keep a message from.
  const post = (message) => parent.postMessage({ jsonrpc: "2.0", ...message }, "*");

  const answer = async ({ id, method, params }) => {
    const handler = handlers.get(method);
    if (!handler) return post({ id, error: { code: -32601, message: "There is no such method." } });
    return post({ id, result: (await handler(params ?? {})) ?? {} });
  };

  addEventListener("message", ({ source, data }) => {
    if (source !== parent || data?.jsonrpc !== "2.0") return;
    if (typeof data.method === "string") {
      if (data.id !== undefined) answer(data);
      else handlers.get(data.method)?.(data.params ?? {});
      return;
    }
    const waiting = open.get(data.id);
    open.delete(data.id);
    if (data.error) waiting?.failed(refusedBy(data.error));
    else waiting?.done(data.result ?? {});
  });

  return {
    on: (method, handler) => handlers.set(method, handler),
    notify: (method, params) => post({ method, params }),
    /** @throws {import("./source.js").Failure} */
    request: (method, params) =>
      new Promise((done, failed) => {
        last += 1;
        open.set(last, { done, failed });
        post({ id: last, method, params });
      }),
  };
}

/** Why the host refused, as a failure. */
function refusedBy(error) {
  const message = typeof error.message === "string" ? error.message : "The host refused it.";
  return { code: "host", message, fix: "" };
}

/**
 * The view that a result carries, with what its structure says beside; null where it carries none.
 * @param {object} result  Of a tool
 */
function viewOfResult(result) {
  const shown = result?._meta?.[HOST_VIEW];
  if (!shown) return null;
  const content = result.structuredContent ?? {};
  const { answer = "", parsed = null, policy = [], sources = [], timing = null, error = null, swarm = null } = content;
  return { ...shown, answer, parsed, policy, sources, timing, error, swarm };
}

/**
 * What a result without a view says, as a failure: the host shows its text anyway.
 * @param {object} result  Of a tool
 */
function failureOfResult(result) {
  const fix = (result?.content ?? []).map((block) => block.text ?? "").join("\n");
  return result?.structuredContent?.error ?? { code: "no_run", message: "This result shows no run.", fix };
}

/** A prompt as lists show its beginning. */
function inOneLine(prompt) {
  return typeof prompt === "string" ? prompt.slice(0, 1000).trim().split(/\s+/).join(" ") : "";
}

/** A link within the document changes the route alone, wherever the host has put the document; others the host opens. */
function followLink(event, opener) {
  const link = event.target.closest?.("a[href]");
  if (!link || event.defaultPrevented) return;
  const address = link.getAttribute("href");
  if (address.startsWith("#")) {
    event.preventDefault();
    location.hash = address;
  } else if (opener && /^https?:/i.test(address)) {
    event.preventDefault();
    opener.request("ui/open-link", { url: address }).catch(() => {});
  }
}

/** Tells the host how large the document is, now and at each change. */
function reportSize(host) {
  let before = "";
  const report = () => {
    const root = document.documentElement;
    root.style.height = "max-content";
    const height = Math.ceil(root.getBoundingClientRect().height);
    root.style.height = "";
    const width = Math.ceil(innerWidth);
    if (before === `${width} ${height}`) return;
    before = `${width} ${height}`;
    host.notify("ui/notifications/size-changed", { width, height });
  };
  const observer = new ResizeObserver(() => requestAnimationFrame(report));
  observer.observe(document.documentElement);
  observer.observe(document.body);
}
