// The theme makes a landmark without a name around the copy button of each block of code, and wide tables
// that only a mouse can scroll.
const mend = () => {
  document.querySelectorAll("nav.md-code__nav:not([role])").forEach((nav) => nav.setAttribute("role", "none"));
  document.querySelectorAll(".md-typeset__scrollwrap:not([tabindex])").forEach((box) => box.setAttribute("tabindex", "0"));
};
new MutationObserver(mend).observe(document.documentElement, { childList: true, subtree: true });
mend();
