// Texts kept in this browser, by name. Where it has no storage, or that is full, nothing is kept and nothing breaks.

export function kept(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

export function keep(name, text) {
  try {
    if (text === null) localStorage.removeItem(name);
    else localStorage.setItem(name, text);
  } catch {
    // the server will have it in a moment
  }
}
