// Where the view has its data from: the interface, and the source of a live page (HTTP and server-sent events).

import { merge } from "./merge.js";
import { filterQuery } from "./routes.js";

/**
 * @typedef {object} Failure  Why something could not be had.
 * @property {string} code  "run_not_found", "offline", …
 * @property {string} message
 * @property {string} fix  What to do, or ""
 */

/**
 * @typedef {object} Source  What each place gives the view; `kimi_mcp/view/model.py` makes the JSON.
 * @property {{list: boolean, cancel: boolean, step: boolean}} can  What the place offers; a method that it does not
 *   offer is never called. `step`: texts of steps are requested one by one, else they are in the view already.
 * @property {(filters: import("./routes.js").Filters, cursor: ?string) =>
 *   Promise<{runs: object[], next: ?string}>} list
 * @property {() => Promise<{statuses: string[], tools: string[], hosts: string[], callers: string[]}>} facets
 * @property {(days: number) => Promise<{days: object[]}>} costs
 * @property {(filters: import("./routes.js").Filters, report: (change: ListChange) => void) => () => void} onList
 *   Follows the list, until what it returns is called.
 * @property {(id: string) => Promise<object>} run  A RunView.
 * @property {(id: string, report: (news: {view?: object, error?: ?Failure, offline?: boolean}) => void) =>
 *   () => void} onRun
 *   Follows a run: `view` is everything known, a new object at each change; `offline` says whether the place is away.
 * @property {(agent: string) => void} [onAgent]  Names the agent that is open, or "": of that one `view.arriving` has what
 *   arrives of its running step.
 * @property {(id: string, key: string) => Promise<object>} step  The texts of a step.
 * @property {(id: string) => Promise<void>} cancel
 * @property {() => Promise<{name: ?string, sees_all: boolean}>} [session]  Who has signed in; no name: nobody has to.
 * @property {() => Promise<void>} [signOut]
 * @property {string} [only]  The one run that the place shows, where it has no list.
 * @property {boolean} [framed]  Whether a host frames the page: it has the title around it, and chooses the theme.
 */

/**
 * @typedef {object} ListChange
 * @property {object[]} [changed]  Runs, new ones too
 * @property {string[]} [gone]  Ids
 * @property {boolean} [costs]  Today's sums are others
 * @property {boolean} [reset]  Changes were missed: load the list again
 * @property {boolean} [offline]  Whether the server can't be reached
 */

/** What a request that changes something has, and no other site can send. */
const OWN = { "Content-Type": "application/json", "X-Kimi-View": "1" };

const OFFLINE = "offline";

/** How long a page waits before it tries an ended stream again, in ms; doubled each time up to the last. */
const FIRST_WAIT = 1000;
const LAST_WAIT = 15000;

/** How long a page may be hidden until it follows nothing, in ms. */
const HIDDEN_WAIT = 10000;

/**
 * The source of a page that a server serves.
 * @param {string} base  The path of the view, such as "/ui"
 * @returns {Source}
 */
export function liveSource(base) {
  const api = `${base}/api`;
  const runPath = (id) => `${api}/runs/${encodeURIComponent(id)}`;
  let agent = "";
  let followAgain = () => {};
  return {
    can: { list: true, cancel: true, step: true },
    list(filters, cursor) {
      const query = filterQuery(filters);
      if (cursor) query.set("cursor", cursor);
      return requested(`${api}/runs?${query}`);
    },
    facets: () => requested(`${api}/facets`),
    costs: (days) => requested(`${api}/costs?days=${days}`),
    onList(filters, report) {
      return followed(`${api}/events?${filterQuery(filters)}`, {
        runs: report,
        costs: () => report({ costs: true }),
        reset: () => report({ reset: true }),
        opened: (missed) => report({ offline: false, reset: missed }),
        closed: () => report({ offline: true }),
      });
    },
    run: (id) => requested(runPath(id)),
    onRun(id, report) {
      let view = null;
      let stopped = false;
      let timer = 0;
      let frame = 0;
      let stop = () => {};
      followAgain = () => {};
      const show = () => {
        frame = 0;
        if (!stopped) report({ view });
      };
      const load = async () => {
        stop();
        try {
          const loaded = await requested(runPath(id));
          if (stopped) return;
          view = loaded;
          report({ view, error: null, offline: false });
        } catch (failure) {
          if (stopped) return;
          const offline = failure.code === OFFLINE;
          report({ error: offline && view ? null : failure, offline });
          if (offline) timer = setTimeout(load, LAST_WAIT);
          return;
        }
        const change = (name) => (data, cursor) => {
          const merged = merge(view, name, data);
          if (merged === null) return load(); // a piece is missing
          view = { ...merged, cursor: cursor || view.cursor };
          frame ||= requestAnimationFrame(show); // the events of one look are drawn at once
          return undefined;
        };
        followAgain = () => {
          stop();
          const query = new URLSearchParams({ since: view.cursor ?? "", agent });
          stop = followed(`${runPath(id)}/events?${query}`, {
            run: change("run"),
            text: change("text"),
            lanes: change("lanes"),
            step: change("step"),
            reset: load,
            end: () => {
              followAgain = () => {};
              stop();
            },
            opened: (missed) => (missed ? load() : report({ offline: false })),
            closed: () => report({ offline: true }),
          });
        };
        followAgain();
      };
      load();
      return () => {
        stopped = true;
        followAgain = () => {};
        clearTimeout(timer);
        stop();
      };
    },
    onAgent(open) {
      if (open === agent) return;
      agent = open;
      followAgain();
    },
    step: (id, key) => requested(`${runPath(id)}/steps/${encodeURIComponent(key)}`),
    async cancel(id) {
      await requested(`${runPath(id)}/cancel`, { method: "POST", headers: OWN, body: "{}" });
    },
    session: () => requested(`${api}/session`),
    async signOut() {
      await fetch(`${base}/sign-out`, { method: "POST", headers: OWN, body: "{}" });
      location.reload();
    },
  };
}

/**
 * What the server answers, as JSON.
 * @throws {Failure}
 */
async function requested(address, options = {}) {
  let response;
  try {
    response = await fetch(address, { credentials: "same-origin", ...options });
  } catch {
    throw { code: OFFLINE, message: "The server can't be reached.", fix: "This page tries again by itself." };
  }
  if (response.status === 401) {
    // Whoever was signed in is no longer: the form leads back to what is shown.
    location.replace(`${document.documentElement.dataset.base}/sign-in${location.hash}`);
  }
  const data = await response.json().catch(() => null);
  if (response.ok && data) return data;
  if (data?.error) throw data.error;
  throw { code: "http", message: `The server answered with status ${response.status}.`, fix: "Reload this page." };
}

/**
 * Follow a stream of events and begin again where it ends.
 * @param {string} address
 * @param {Record<string, Function>} events  By name; `opened` is called with whether something may have been missed,
 *   `closed` as often as it breaks.
 * @returns {() => void}  Ends it.
 */
function followed(address, events) {
  let stream = null;
  let timer = 0;
  let hiding = 0;
  let wait = FIRST_WAIT;
  let missed = false;
  const open = () => {
    stream = new EventSource(address);
    stream.onopen = () => {
      events.opened(missed);
      missed = false;
      wait = FIRST_WAIT;
    };
    stream.onerror = () => {
      missed = true;
      events.closed();
      // The browser tries again by itself, but for an answer that is no stream.
      if (stream.readyState !== EventSource.CLOSED) return;
      requested(`${document.documentElement.dataset.base}/api/session`).catch(() => {}); // am I still signed in?
      timer = setTimeout(open, wait);
      wait = Math.min(2 * wait, LAST_WAIT);
    };
    for (const [name, report] of Object.entries(events)) {
      if (name !== "opened" && name !== "closed") {
        stream.addEventListener(name, (event) => report(event.data ? JSON.parse(event.data) : {}, event.lastEventId));
      }
    }
  };
  const pause = () => {
    missed = true;
    clearTimeout(timer);
    stream.close();
    stream = null;
  };
  // Over HTTP/1.1 a browser has six connections for all pages of a server: one that nobody sees leaves its own.
  const look = () => {
    clearTimeout(hiding);
    if (document.hidden) hiding = setTimeout(pause, HIDDEN_WAIT);
    else if (stream === null) open();
  };
  document.addEventListener("visibilitychange", look);
  open();
  return () => {
    document.removeEventListener("visibilitychange", look);
    clearTimeout(hiding);
    clearTimeout(timer);
    stream?.close();
  };
}
