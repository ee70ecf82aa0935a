// The frame of every page: header, theme, routes, and the question before cancel.

import { CancelDialog } from "./dialog.js";
import { html, render, useEffect, useRef, useState } from "./library.js";
import { Icon } from "./parts.js";
import { listHref, useRoute } from "./routes.js";
import { RunPage } from "./run.js";

const THEMES = ["auto", "light", "dark"];

/**
 * Show the view.
 * @param {import("./source.js").Source} source
 * @param {Function} [List]  The component of the list, in a place that has one
 */
export function start(source, List) {
  if (!source.framed) applyTheme(savedTheme());
  render(html`<${App} source=${source} List=${List} />`, document.getElementById("view"));
}

function App({ source, List }) {
  const route = useRoute();
  const [cancelled, setCancelled] = useState(null);
  const id = source.only ?? (route.page === "run" ? route.id : null);
  const first = useRef(true);
  const list = useRef("#/"); // with the filters that it had
  if (route.page === "list") list.current = listHref(route.filters);
  useEffect(() => {
    // A run's page was opened: a screen reader begins at its head, as after a click on any link. The list has its own.
    if (!first.current && id !== null) {
      document.getElementById("main").focus({ preventScroll: true });
      scrollTo({ top: 0, behavior: "instant" });
    }
    first.current = false;
  }, [id]);
  return html`
    ${!source.framed &&
    html`<a class="skip" href="#main" onClick=${skip}>Skip to the content</a>
      <header class="top">
        <a class="brand" href=${source.can.list ? "#/" : undefined}>
          <span class="mark"><${Icon} name="mark" /></span>kimi-mcp
        </a>
        ${source.can.list && id !== null && html`<nav aria-label="Pages">
          <a href=${list.current}><${Icon} name="back" />All runs</a>
        </nav>`}
        <div class="buttons">
          ${source.session && html`<${Account} source=${source} />`}
          <${Theme} />
        </div>
      </header>`}
    <main id="main" tabindex="-1">
      ${id === null
        ? html`<${List} source=${source} filters=${route.filters} />`
        : html`<${RunPage}
            key=${id}
            source=${source}
            id=${id}
            agent=${route.agent ?? ""}
            step=${route.step ?? ""}
            onCancel=${setCancelled}
          />`}
    </main>
    ${cancelled && html`<${CancelDialog} run=${cancelled} source=${source} onClose=${() => setCancelled(null)} />`}
  `;
}

/** Who has signed in, where somebody has to. */
function Account({ source }) {
  const [session, setSession] = useState(null);
  useEffect(() => {
    source.session().then(setSession, () => {});
  }, [source]);
  if (!session?.name) return null;
  return html`<span class="account" title=${session.sees_all ? "Sees everybody's runs" : "Sees their own runs"}>
    ${session.name}</span>
    <button type="button" class="quiet" onClick=${source.signOut}>Sign out</button>`;
}

function Theme() {
  const [theme, setTheme] = useState(savedTheme());
  const next = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  const change = () => {
    applyTheme(next);
    setTheme(next);
  };
  return html`<button type="button" class="quiet" onClick=${change} aria-label=${`Theme: ${theme}. Change to ${next}.`}
    title=${`Theme: ${theme}`}><${Icon} name=${theme} /></button>`;
}

function skip(event) {
  event.preventDefault();
  document.getElementById("main").focus();
}

/** The theme that the reader chose; a page opened from a file may have no storage. */
function savedTheme() {
  try {
    const saved = localStorage.getItem("kimi-theme");
    return THEMES.includes(saved) ? saved : "auto";
  } catch {
    return "auto";
  }
}

function applyTheme(theme) {
  document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem("kimi-theme", theme);
  } catch {
    // It holds as long as the page is open.
  }
}
