// The sandbox between the host's page and a view: an origin without anything of the host's, whose Content-Security-Policy
// holds for the view too. It passes messages on, both ways. The view is written into its frame, as in the SDK's example
// of a host; where the address says so, it has an origin of its own instead, which shares nothing with any other.
const inner = document.createElement("iframe");
inner.title = "run";
const opaque = location.search === "?opaque";
inner.setAttribute("sandbox", opaque ? "allow-scripts" : "allow-scripts allow-same-origin allow-forms");
inner.style.cssText = "width: 100%; height: 100%; border: 0;";
document.documentElement.style.height = document.body.style.height = "100%";
document.body.style.margin = 0;
document.body.append(inner);

window.addEventListener("message", ({ source, data }) => {
  if (source === window.parent && data?.method === "ui/notifications/sandbox-resource-ready") {
    if (opaque) {
      inner.srcdoc = data.params.html;
      return;
    }
    const view = inner.contentDocument;
    view.open();
    view.write(data.params.html);
    view.close();
  } else if (source === window.parent) {
    inner.contentWindow.postMessage(data, "*");
  } else if (source === inner.contentWindow) {
    window.parent.postMessage(data, "*");
  }
});
window.parent.postMessage({ jsonrpc: "2.0", method: "ui/notifications/sandbox-proxy-ready", params: {} }, "*");
