// Keeps the numbers fresh: loads the page anew every half minute, unless it is being used.

const EVERY = 30000;

function inUse() {
  const field = document.activeElement?.matches("input, textarea, select, button");
  const written = [...document.querySelectorAll("textarea")].some((area) => area.value !== area.defaultValue);
  return field || written || document.hidden || String(getSelection()) || document.querySelector(".new-link");
}

setInterval(() => inUse() || location.reload(), EVERY);
document.querySelector("#link")?.select();
