// Merges what a server sends of a running run into the view that the page shows. Pure: no view is ever changed, and
// what did not change keeps its identity, so that only what changed is drawn again.

/**
 * The view after an event.
 * @param {object} view RunView, as far as it is known
 * @param {"run"|"text"|"lanes"|"step"} name the event's name
 * @param {object} data the event's data
 * @returns {object|null} the new view; null: the event does not fit the view, which has to be loaded again
 */
export function merge(view, name, data) {
  if (name === "run") return { ...view, ...data };
  if (name === "text") return mergeText(view, data);
  if (name === "lanes") {
    return { ...view, lanes: mergeLanes(view.lanes, data.lanes), seconds: data.seconds ?? view.seconds };
  }
  return name === "step" ? { ...view, arriving: mergeArriving(view.arriving, data) } : view;
}

/**
 * How many code points a text has: the server counts those, not UTF-16 units.
 * @param {string} text any text
 * @returns {number} its code points
 */
export function codePoints(text) {
  const pairs = text.match(/[\ud800-\udbff][\udc00-\udfff]/g);
  return text.length - (pairs ? pairs.length : 0);
}

function mergeText(view, { of, start, text }) {
  const before = view[of] ?? "";
  const known = view.known?.[of]?.text === before ? view.known[of].chars : codePoints(before);
  if (start > known) return null; // a piece is missing
  const kept = start === known ? before : [...before].slice(0, start).join("");
  const merged = kept + text;
  return { ...view, [of]: merged, known: { ...view.known, [of]: { text: merged, chars: start + codePoints(text) } } };
}

/** What arrives of a running step: each text grows where its end is known, and begins anew where it is not. */
function mergeArriving(before, { key, ...texts }) {
  const merged = before?.key === key ? { ...before } : { key };
  for (const [of, { start, text }] of Object.entries(texts)) {
    const known = merged[of]?.end === start ? merged[of] : { start, text: "" };
    merged[of] = { start: known.start, end: start + codePoints(text), text: known.text + text };
  }
  return merged;
}

function mergeLanes(lanes, changed) {
  const merged = [...lanes];
  const places = new Map(lanes.map((lane, at) => [lane.id, at]));
  let added = false;
  for (const lane of changed) {
    const at = places.get(lane.id);
    if (at === undefined) {
      places.set(lane.id, merged.push({ ...lane, steps: lane.steps ?? [] }) - 1);
      added = true;
    } else {
      merged[at] = { ...merged[at], ...lane, steps: mergeSteps(merged[at].steps, lane.steps ?? []) };
    }
  }
  return added ? merged.sort((one, other) => agentNumber(one.id) - agentNumber(other.id)) : merged;
}

function mergeSteps(steps, changed) {
  if (!changed.length) return steps;
  const merged = [...steps];
  const places = new Map(steps.map((step, at) => [step.key, at]));
  for (const step of changed) {
    const at = places.get(step.key);
    if (at === undefined) places.set(step.key, merged.push(step) - 1);
    else merged[at] = { ...merged[at], ...step };
  }
  return merged;
}

function agentNumber(id) {
  return id === "main" ? -1 : Number(/\d+$/.exec(id)?.[0] ?? 0);
}
