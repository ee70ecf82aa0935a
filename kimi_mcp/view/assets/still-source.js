// The source of a file that shows one run as it was: all data is in the document.

/**
 * @returns {import("./source.js").Source}
 */
export function stillSource() {
  const view = JSON.parse(document.getElementById("data").textContent);
  return {
    can: { list: false, cancel: false, step: false },
    only: view.run.run_id,
    run: async () => view,
    onRun(id, report) {
      report({ view });
      return () => {};
    },
  };
}
