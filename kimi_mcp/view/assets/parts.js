// Small components that several pages use: a status, an icon, a notice. Nothing is meant by colour alone.

import { html } from "./library.js";

/** Shapes on a grid of 16, drawn as lines. */
const ICONS = {
  completed: "M3.5 8.5l3 3 6-7",
  running: "M8 2.5a5.5 5.5 0 1 0 5.5 5.5",
  partial: "M8 2.5v11a5.5 5.5 0 0 1 0-11zM8 2.5a5.5 5.5 0 0 1 0 11",
  failed: "M4 4l8 8M12 4l-8 8",
  cancelled: "M8 2.5a5.5 5.5 0 1 0 0 11a5.5 5.5 0 0 0 0-11zM4.2 4.2l7.6 7.6",
  mark: "M4 5h5M4 8h8M4 11h6",
  back: "M9.5 3.5L5 8l4.5 4.5",
  search: "M7 2.5a4.5 4.5 0 1 0 0 9a4.5 4.5 0 0 0 0-9zM10.5 10.5l3 3",
  down: "M4 6.5l4 4 4-4",
  close: "M4.5 4.5l7 7M11.5 4.5l-7 7",
  stop: "M4.5 4.5h7v7h-7z",
  warning: "M8 2.5l6 11H2zM8 6.5v3.2M8 11.6v.1",
  light: "M8 5a3 3 0 1 0 0 6a3 3 0 0 0 0-6zM8 1v1.5M8 13.5V15M1 8h1.5M13.5 8H15M3 3l1 1M12 12l1 1M3 13l1-1M12 4l1-1",
  dark: "M13 9.5A5.5 5.5 0 0 1 6.5 3a5.5 5.5 0 1 0 6.5 6.5z",
  auto: "M2 3h12v8H2zM6 13.5h4M8 11v2.5",
};

/**
 * A picture beside a text, which says the same; without a text around it, the button has the name.
 * @param {{name: keyof typeof ICONS}} props
 */
export function Icon({ name }) {
  return html`<svg class="icon" viewBox="0 0 16 16" aria-hidden="true"><path d=${ICONS[name]} /></svg>`;
}

/**
 * A run's or an agent's status: shape, colour and word.
 * @param {{status: string, live?: boolean}} props  `live`: a change of it is read out
 */
export function Status({ status, live = false }) {
  const icon = status in ICONS ? status : "partial";
  return html`<span class="status" data-status=${status} role=${live ? "status" : undefined}>
    <${Icon} name=${icon} />${status}
  </span>`;
}

/**
 * A message of an error, or what to do about it: what it has between backticks is code.
 * @param {{text: ?string}} props
 */
export function Coded({ text }) {
  return betweenTicks(text).map((piece, at) => (at % 2 ? html`<code key=${at}>${piece}</code>` : piece));
}

/**
 * The same text where no element can stand, without its backticks.
 * @param {?string} text
 * @returns {string}
 */
export function uncoded(text) {
  return betweenTicks(text).join("");
}

/** Pieces of a text: every second one stands between backticks. */
function betweenTicks(text) {
  return (text ?? "").split(/`([^`\n]+)`/);
}

/**
 * Something that the reader should know: what happened, and what to do.
 * @param {{kind?: "info"|"warn"|"bad", title: string, children?: any}} props
 */
export function Notice({ kind = "info", title, children }) {
  return html`<div class="notice" data-kind=${kind} role=${kind === "bad" ? "alert" : undefined}>
    <strong><${Coded} text=${title} /></strong>${children && html`<div>${children}</div>`}
  </div>`;
}

/**
 * Why something could not be had.
 * @param {{failure: import("./source.js").Failure, onRetry?: () => void}} props
 */
export function FailureNotice({ failure, onRetry }) {
  return html`<${Notice} kind="bad" title=${failure.message}>
    <${Coded} text=${failure.fix} />${onRetry && html`<p><button type="button" onClick=${onRetry}>Try again</button></p>`}
  <//>`;
}
