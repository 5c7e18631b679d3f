// The theme makes a landmark without a name around the copy button of each block of code.
const unnamed = () => document.querySelectorAll("nav.md-code__nav:not([role])").forEach((nav) => nav.setAttribute("role", "none"));
new MutationObserver(unnamed).observe(document.documentElement, { childList: true, subtree: true });
unnamed();
