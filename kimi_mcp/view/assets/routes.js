// The routes of the view, all of them in the hash of the address. Pure, but for useRoute.

import { useEffect, useState } from "./library.js";

/** The filters of the list; those of LISTS may stand several times. */
const LISTS = ["status", "tool", "host", "caller"];
const TEXTS = ["day", "q"];

/**
 * @typedef {object} Filters  Which runs the list shows; an empty one shows all.
 * @property {string[]} status
 * @property {string[]} tool
 * @property {string[]} host
 * @property {string[]} caller
 * @property {string} day  YYYY-MM-DD, in UTC
 * @property {string} q  Text in the beginning of the prompt
 */

/**
 * @typedef {{page: "list", filters: Filters} | {page: "run", id: string, agent: string, step: string}} Route
 */

/**
 * The route that a hash means; one that means nothing is the list.
 * @param {string} hash  Such as "#/run/run_1/agent-7/s2" or "#/?status=running"
 * @returns {Route}
 */
export function readRoute(hash) {
  const [path, query = ""] = hash.replace(/^#/, "").split("?", 2);
  const parts = path.split("/").filter(Boolean).map(decoded);
  if (parts[0] === "run" && parts[1]) {
    return { page: "run", id: parts[1], agent: parts[2] ?? "", step: parts[3] ?? "" };
  }
  const given = new URLSearchParams(query);
  const filters = {};
  for (const name of LISTS) filters[name] = given.getAll(name);
  for (const name of TEXTS) filters[name] = given.get(name) ?? "";
  return { page: "list", filters };
}

/**
 * The address of a run, one of its agents, or a step of one.
 * @param {string} id
 * @param {string} [agent]
 * @param {string} [step]
 */
export function runHref(id, agent = "", step = "") {
  return "#/" + ["run", id, agent, step].filter(Boolean).map(encodeURIComponent).join("/");
}

/**
 * The address of the list with its filters.
 * @param {Filters} filters
 */
export function listHref(filters) {
  const query = filterQuery(filters).toString();
  return query ? `#/?${query}` : "#/";
}

/**
 * Filters as the parameters of an address, ours and the server's.
 * @param {Filters} filters
 * @returns {URLSearchParams}
 */
export function filterQuery(filters) {
  const query = new URLSearchParams();
  for (const name of LISTS) for (const value of filters[name] ?? []) query.append(name, value);
  for (const name of TEXTS) if (filters[name]) query.set(name, filters[name]);
  return query;
}

/**
 * Whether any filter is set.
 * @param {Filters} filters
 */
export function isFiltered(filters) {
  return filterQuery(filters).size > 0;
}

/**
 * The route of the page's address, followed as it changes.
 * @returns {Route}
 */
export function useRoute() {
  const [hash, setHash] = useState(location.hash);
  useEffect(() => {
    const follow = () => setHash(location.hash);
    addEventListener("hashchange", follow);
    follow(); // an effect runs after the first paint: the address may have changed in between
    return () => removeEventListener("hashchange", follow);
  }, []);
  return readRoute(hash);
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
