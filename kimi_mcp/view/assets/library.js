// What the modules use of the libraries in vendor/, which are plain scripts that set a global each.

/** Elements as a tagged template: html`<p class="note">${text}</p>`. A ${…} is text or elements, never markup. */
export const html = self.htm.bind(self.preact.h);
export const render = self.preact.render;
export const Component = self.preact.Component;
export const useState = self.preactHooks.useState;
export const useEffect = self.preactHooks.useEffect;
export const useLayoutEffect = self.preactHooks.useLayoutEffect;
export const useMemo = self.preactHooks.useMemo;
export const useRef = self.preactHooks.useRef;
export const useCallback = self.preactHooks.useCallback;
