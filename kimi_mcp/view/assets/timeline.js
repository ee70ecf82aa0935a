// What the lanes of a run say about its time: the axis, the path that it waited for, its agents by state. Pure.

/** About how many marks the axis has at most. */
const MARKS = 7;

const MINUTE = 60;
const HOUR = 3600;

/** Seconds between two marks of a run that takes minutes; in a longer run they are hours apart. */
const MINUTE_MARKS = [60, 120, 300, 600, 1200, 1800, HOUR];

/** By how much the axis of a running run grows once its end is reached: it grows seldom, since then all bars move. */
const GROWTH = 1.3;

/**
 * Seconds between two marks of an axis: 1, 2 or 5 of some power of ten, or a round number of minutes or hours.
 * @param {number} seconds the axis's length
 * @returns {number} seconds, above 0
 */
export function markEvery(seconds) {
  const least = Math.max(seconds, 0.001) / MARKS;
  if (least > MINUTE / 3) return MINUTE_MARKS.find((mark) => mark >= least) ?? HOUR * Math.ceil(least / HOUR);
  const power = 10 ** Math.floor(Math.log10(least));
  return power * [1, 2, 5, 10].find((step) => step * power >= least);
}

/**
 * The length of the axis: of a run that has ended its seconds, of a running one somewhat more.
 * @param {number} seconds how long the run took, or takes by now
 * @param {boolean} running whether it runs
 * @param {number} before the axis's length so far
 * @returns {number} seconds
 */
export function axisLength(seconds, running, before = 0) {
  if (!running) return Math.max(seconds, 0.001);
  return before >= seconds && before > 0 ? before : Math.max(10, seconds * GROWTH);
}

/**
 * When a step ends: of one that has no end, the run's.
 * @param {object} step Step
 * @param {number} seconds the run's seconds
 * @returns {number} seconds since the run began
 */
export function endOf(step, seconds) {
  return step.end_s ?? Math.max(seconds, step.start_s);
}

/**
 * What the run waited for, one after another: the steps of the main agent and, between them, the agents of the
 * critical path, and what these waited for their turn before they began.
 * @param {object[]} lanes Lanes
 * @param {number} seconds the run's seconds
 * @returns {{lane: object, start: number, end: number, turn: boolean}[]} stretches in order, none over another; `turn`:
 *   in which an agent waited for its turn
 */
export function waitedFor(lanes, seconds) {
  const stretches = [];
  for (const lane of lanes.filter((each) => each.critical && each.steps.length)) {
    if (lane.id === "main") {
      for (const step of lane.steps) stretches.push({ lane, start: step.start_s, end: endOf(step, seconds), turn: false });
    } else {
      const first = lane.steps.reduce((one, other) => (other.start_s < one.start_s ? other : one));
      const [start, waited] = [first.start_s, first.waited_s ?? 0];
      if (waited > seconds / 100) stretches.push({ lane, start: start - waited, end: start, turn: true });
      stretches.push({ lane, start, end: Math.max(...lane.steps.map((step) => endOf(step, seconds))), turn: false });
    }
  }
  stretches.sort((one, other) => one.start - other.start);
  const path = [];
  for (const stretch of stretches) {
    const last = path.at(-1);
    const start = Math.max(stretch.start, last ? last.end : 0);
    if (last && last.lane === stretch.lane && last.turn === stretch.turn && start - last.end < seconds / 500) last.end = Math.max(last.end, stretch.end);
    else if (stretch.end > start) path.push({ ...stretch, start });
  }
  return path;
}

/**
 * For how long the run waited for each agent of the critical path.
 * @param {{lane: object, start: number, end: number}[]} path of `waitedFor`
 * @returns {{lane: object, seconds: number}[]} the longest first
 */
export function waitedLongest(path) {
  const sums = new Map();
  for (const { lane, start, end, turn } of path) if (!turn) sums.set(lane, (sums.get(lane) ?? 0) + end - start);
  return [...sums].map(([lane, seconds]) => ({ lane, seconds })).sort((one, other) => other.seconds - one.seconds);
}

/**
 * How many sub-agents are in each state.
 * @param {object[]} lanes Lanes
 * @returns {[string, number][]} state and number, without those that no agent is in
 */
export function agentStates(lanes) {
  const states = ["completed", "partial", "failed", "cancelled", "running"];
  const agents = lanes.filter((lane) => lane.id !== "main");
  return states
    .map((state) => [state, agents.filter((lane) => lane.status === state).length])
    .filter(([, number]) => number);
}
