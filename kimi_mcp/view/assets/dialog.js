// The question before a run is cancelled.

import { html, useEffect, useRef, useState } from "./library.js";
import { FailureNotice } from "./parts.js";

/**
 * Asks whether to cancel a run, and cancels it. The answer that does nothing has the focus first.
 * @param {{run: object, source: import("./source.js").Source, onClose: () => void}} props
 */
export function CancelDialog({ run, source, onClose }) {
  const dialog = useRef(null);
  const [state, setState] = useState({ busy: false, failure: null });
  useEffect(() => dialog.current.showModal(), []);
  const cancel = async () => {
    setState({ busy: true, failure: null });
    try {
      await source.cancel(run.run_id);
      dialog.current?.close();
    } catch (failure) {
      setState({ busy: false, failure });
    }
  };
  const isSwarm = run.tool === "kimi_swarm" || run.agents > 0;
  const many = run.agents > 1 ? `Its ${run.agents} agents stop. ` : "";
  return html`<dialog ref=${dialog} onClose=${onClose} aria-labelledby="cancel-title" aria-describedby="cancel-text">
    <h2 id="cancel-title">Cancel this run?</h2>
    <p id="cancel-text">
      ${many}${isSwarm
        ? "Answers of finished steps are kept; requests under way are paid for and lost."
        : "What has arrived so far is kept and has been paid for."} This can't be undone.
    </p>
    <p class="quote">${run.prompt}</p>
    ${state.failure && html`<${FailureNotice} failure=${state.failure} />`}
    <div class="buttons">
      <button type="button" onClick=${() => dialog.current.close()}>Keep it running</button>
      <button type="button" class="danger" disabled=${state.busy} onClick=${cancel}>
        ${state.busy ? "Cancelling…" : "Cancel the run"}
      </button>
    </div>
  </dialog>`;
}
