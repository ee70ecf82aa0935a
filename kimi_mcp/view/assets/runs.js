// The runs of a list as they are loaded and as they change. Pure: every change is a new object.

/**
 * @typedef {object} Loaded
 * @property {object[]} runs  The newest first
 * @property {?string} next  The cursor of the next page; null: all are here
 */

/** Nothing is loaded yet. */
export const NOTHING = { runs: [], next: null };

/**
 * With another page at the end, or the first one.
 * @param {Loaded} loaded
 * @param {{runs: object[], next: ?string}} page
 * @returns {Loaded}
 */
export function withPage(loaded, page) {
  const known = new Set(loaded.runs.map((run) => run.run_id));
  const runs = page.runs.filter((run) => !known.has(run.run_id)).map(received);
  return { runs: [...loaded.runs, ...runs], next: page.next };
}

/**
 * With what has changed. A run that the filters don't show any more leaves; one that is older than all that is loaded
 * comes with its page.
 * @param {Loaded} loaded
 * @param {{changed?: object[], gone?: string[]}} change
 * @param {import("./routes.js").Filters} filters
 * @returns {Loaded}
 */
export function withChange(loaded, { changed = [], gone = [] }, filters) {
  const left = new Set(gone);
  const fresh = new Map();
  for (const run of changed) {
    if (filters.status.length && !filters.status.includes(run.status)) left.add(run.run_id);
    else fresh.set(run.run_id, received(run));
  }
  const kept = [];
  for (const run of loaded.runs) {
    if (!left.has(run.run_id)) kept.push(fresh.get(run.run_id) ?? run);
    fresh.delete(run.run_id);
  }
  const oldest = loaded.runs.at(-1);
  const added = [...fresh.values()].filter((run) => loaded.next === null || !oldest || compared(run, oldest) < 0);
  return { runs: added.length ? [...added, ...kept].sort(compared) : kept, next: loaded.next };
}

/**
 * Seconds that a run takes or took, by now.
 * @param {object} run
 * @param {number} now  As performance.now() has it
 */
export function secondsOf(run, now) {
  return run.status === "running" ? run.seconds + (now - run.receivedAt) / 1000 : run.seconds;
}

/** A run, with when it came: its seconds count from there, by the reader's own clock. */
function received(run) {
  return { ...run, receivedAt: performance.now() };
}

/** The newest first, as the server has them. */
function compared(one, other) {
  if (one.started_at !== other.started_at) return one.started_at < other.started_at ? 1 : -1;
  return one.run_id < other.run_id ? 1 : -1;
}
