// The filters above the list. They are in the page's address, so that a link shows the same.

import { html, useEffect, useRef, useState } from "./library.js";
import { Icon } from "./parts.js";
import { isFiltered, listHref } from "./routes.js";

const STATUSES = ["running", "completed", "partial", "failed", "cancelled"];
const NO_FILTERS = { status: [], tool: [], host: [], caller: [], day: "", q: "" };

/** How long the reader pauses before what was typed counts, in ms. */
const PAUSE = 250;

/**
 * @param {object} props
 * @param {import("./routes.js").Filters} props.filters
 * @param {{tools: string[], hosts: string[], callers: string[]}} props.facets  What can be chosen
 */
export function FilterBar({ filters, facets }) {
  const set = (name, value) => location.replace(listHref({ ...filters, [name]: value }));
  const stay = (event) => event.preventDefault();
  return html`<form class="filters" role="search" aria-label="Filter the runs" onSubmit=${stay}>
    <${Words} words=${filters.q} onWords=${(words) => set("q", words)} />
    <label class="day"><span>Day (UTC)</span>
      <input type="date" value=${filters.day}
        onChange=${(event) => set("day", event.target.value)} />
    </label>
    <div class="choices" role="group" aria-label="Status">
      ${STATUSES.map((status) => html`<button
        type="button"
        aria-pressed=${filters.status.includes(status)}
        data-status=${status}
        onClick=${() => set("status", toggled(filters.status, status))}
      ><${Icon} name=${status} />${status}</button>`)}
    </div>
    <${Menu} name="Tool" values=${facets.tools} chosen=${filters.tool} onChange=${(chosen) => set("tool", chosen)} />
    <${Menu} name="Host" values=${facets.hosts} chosen=${filters.host} onChange=${(chosen) => set("host", chosen)} />
    <${Menu} name="Caller" values=${facets.callers} chosen=${filters.caller}
      onChange=${(chosen) => set("caller", chosen)} />
    ${isFiltered(filters) && html`<button type="button" class="quiet" onClick=${clearFilters}>
      <${Icon} name="close" />Clear filters
    </button>`}
  </form>`;
}

/** Show all runs. */
export function clearFilters() {
  location.replace(listHref(NO_FILTERS));
}

function Words({ words, onWords }) {
  const [typed, setTyped] = useState(words);
  const timer = useRef(0);
  useEffect(() => setTyped(words), [words]);
  useEffect(() => () => clearTimeout(timer.current), []);
  const type = (event) => {
    const text = event.target.value;
    setTyped(text);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => onWords(text.trim()), PAUSE);
  };
  return html`<label class="search"><${Icon} name="search" /><span class="hidden">Text in the prompt</span>
    <input type="search" placeholder="Search prompts" value=${typed} onInput=${type} autocomplete="off" />
  </label>`;
}

/** Several values of one filter: a button that opens boxes. They close by Escape, and when the focus leaves. */
function Menu({ name, values, chosen, onChange }) {
  const [open, setOpen] = useState(false);
  const box = useRef(null);
  useEffect(() => {
    if (!open) return undefined;
    const close = (event) => box.current.contains(event.target) || setOpen(false);
    addEventListener("pointerdown", close);
    return () => removeEventListener("pointerdown", close);
  }, [open]);
  const all = [...new Set([...values, ...chosen])];
  if (all.length < 2 && !chosen.length) return null;
  const key = (event) => {
    if (event.key !== "Escape" || !open) return;
    setOpen(false);
    box.current.querySelector("button").focus();
  };
  const side = box.current?.getBoundingClientRect().left > innerWidth / 2 ? "right" : "left";
  const left = (event) => event.relatedTarget && !box.current.contains(event.relatedTarget) && setOpen(false);
  return html`<div class="menu" data-side=${side} ref=${box} onKeyDown=${key} onFocusOut=${left}>
    <button type="button" aria-expanded=${open} data-chosen=${chosen.length > 0} onClick=${() => setOpen(!open)}>
      ${name}${chosen.length > 0 && html`: ${chosen.length === 1 ? chosen[0] || "unknown" : chosen.length}`}
      <${Icon} name="down" />
    </button>
    ${open && html`<fieldset>
      <legend class="hidden">${name}</legend>
      ${all.map((value) => html`<label key=${value}>
        <input type="checkbox" checked=${chosen.includes(value)} onChange=${() => onChange(toggled(chosen, value))} />
        <span>${value || "unknown"}</span>
      </label>`)}
    </fieldset>`}
  </div>`;
}

function toggled(values, value) {
  return values.includes(value) ? values.filter((other) => other !== value) : [...values, value];
}
