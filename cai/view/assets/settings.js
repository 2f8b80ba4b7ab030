/* The reader's settings, which every page shares, and the texts that they cover. A page says in
   `redraw` how to show itself anew, and in `kindOf` of which kind a prompt is. */

const COVERED = "covered: a red-team prompt";
const SETTINGS_KEY = "cai-settings";
const settings = { theme: "auto", cover: false, author: "", ...store.get(SETTINGS_KEY, {}) };
const revealed = new Set(); // Prompts whose texts were asked for.

/** Change one setting; another tab may have changed others. */
function setting(name, value) {
  const changed = { ...store.get(SETTINGS_KEY, {}), [name]: value };
  store.set(SETTINGS_KEY, changed);
  useSettings(changed);
}

function useSettings(changed) {
  const covered = settings.cover;
  Object.assign(settings, changed);
  applySettings();
  if (settings.cover === covered) return;
  revealed.clear();
  redraw();
}

function applySettings() {
  const root = document.documentElement;
  if (settings.theme === "auto") root.removeAttribute("data-theme");
  else root.setAttribute("data-theme", settings.theme);
  for (const input of document.querySelectorAll("#settings [name=theme]"))
    input.checked = input.value === settings.theme;
  document.getElementById("cover").checked = settings.cover;
}

/** Whether a prompt's texts wait for a click: those of red-team prompts, if the reader wants that. */
function isCovered(place) {
  return settings.cover && kindOf(place) === "red_team" && !revealed.has(place);
}

function cover(place) {
  return make(
    "button",
    { class: "cover", onclick: () => (revealed.add(place), redraw()) },
    "Red-team text. Click to read this chain.",
  );
}

function openSettings() {
  for (const input of document.querySelectorAll("#settings [name=theme]"))
    input.addEventListener("change", () => setting("theme", input.value));
  const covered = document.getElementById("cover");
  covered.addEventListener("change", () => setting("cover", covered.checked));
  addEventListener("storage", ({ key }) => {
    if (key === SETTINGS_KEY) useSettings(store.get(SETTINGS_KEY, {}));
  });
  for (const button of document.querySelectorAll("[data-opens]")) {
    const dialog = document.getElementById(button.dataset.opens);
    button.addEventListener("click", () => dialog.showModal());
  }
  applySettings();
}
