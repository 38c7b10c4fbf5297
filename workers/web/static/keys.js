// Keys of every page, and what the list needs. Nothing here is needed to work: every key presses a button that is on the page.
(function () {
  "use strict";
  document.documentElement.classList.add("js");
  const page = document.body.dataset.page;
  const keysOn = document.documentElement.dataset.keys !== "off";
  const one = (selector) => document.querySelector(selector);
  const all = (selector) => Array.from(document.querySelectorAll(selector));

  function isTyping(target) {
    return target instanceof HTMLElement && (target.isContentEditable || /^(TEXTAREA|SELECT)$/.test(target.tagName)
      || (target.tagName === "INPUT" && !/^(checkbox|radio|button|submit)$/.test(target.type)));
  }

  // a decision is sent once, however long a key is held or however often a button is pressed
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.method === "dialog") return;
    if (form.dataset.sent) { event.preventDefault(); return; }
    form.dataset.sent = "1";
  });
  window.addEventListener("pageshow", () => all("form[data-sent]").forEach((form) => delete form.dataset.sent));

  function press(button) {
    if (button && !button.disabled) { button.click(); return true; }
    return false;
  }

  function rows() { return all(".queue .open"); }

  function move(step) {
    const links = rows();
    const here = links.indexOf(document.activeElement);
    const there = links[here < 0 ? (step > 0 ? 0 : links.length - 1) : Math.min(Math.max(here + step, 0), links.length - 1)];
    if (there) { there.focus(); there.scrollIntoView({ block: "nearest" }); }
  }

  function showSelection() {
    const button = one("[data-bulk]");
    if (button) button.disabled = !one(".queue input:checked");
  }

  const queueKeys = {
    j: () => move(1),
    k: () => move(-1),
    n: () => press(one("[data-next] button")),
    x: () => {
      const row = document.activeElement && document.activeElement.closest(".row");
      const box = row && row.querySelector("input:not(:disabled)");
      if (box) { box.checked = !box.checked; showSelection(); }
    },
    r: () => press(one("[data-bulk]")),
    Escape: () => { all(".queue input:checked").forEach((box) => { box.checked = false; }); showSelection(); },
  };
  const videoKeys = {
    f: () => press(one(".choice.fake")),
    c: () => press(one(".choice.clean")),
    u: () => press(one(".choice.unsure")),
    s: () => press(one("[data-skip]")),
  };
  const anyKeys = {
    "/": () => { const box = one("#search"); if (box) box.focus(); },
    "?": () => { const help = one("#help"); if (help && !help.open) help.showModal(); },
    z: () => press(one("[data-undo] button")),
  };
  const known = { ...anyKeys, ...(page === "queue" ? queueKeys : {}), ...(page === "video" ? videoKeys : {}) };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat && !/^[jk]$/.test(event.key)) return;
    if (!keysOn && event.key !== "Escape") return;
    if (isTyping(event.target)) { if (event.key === "Escape") event.target.blur(); return; }
    const help = one("#help");
    if (help && help.open) return;
    const act = known[event.key];
    if (act) { event.preventDefault(); act(); }
  });

  document.addEventListener("change", (event) => {
    if (event.target.matches(".queue input")) showSelection();
    if (event.target.closest("form.filters") && page === "queue") event.target.form.requestSubmit();
  });
  showSelection();
})();
