"use strict";
// What both views have in common. What is shown comes from the server's state; what is said goes there with the
// state's number, so that nobody answers what is not asked any more. A view has `show(state)` and `enable()`.
const at = (id) => document.getElementById(id);
let state = null, busy = false, ended = false;

function say(text, wrong) {
  at("status").textContent = text;
  at("status").classList.toggle("wrong", Boolean(wrong));
}

async function call(path, body) {
  const options = body === undefined ? {} : {
    method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json" },
  };
  return fetch(path, options);
}

async function tell(path, body) {
  if (busy || ended || !state) return false;
  busy = true;
  enable();
  try {
    const answer = await call(path, { number: state.number, ...body });
    const found = await answer.json();
    if (answer.ok) {
      show(found);
      return true;
    }
    if (answer.status === 409) {
      show(found.state);
      say("Somebody else has answered meanwhile; this is the question now.", true);
    } else {
      say(found.error || "That was not understood.", true);
    }
  } catch {
    say("The server does not answer. What was said before is kept; start it again to go on.", true);
  } finally {
    busy = false;
    enable();
  }
  return false;
}

async function stop() {
  if (busy || ended || !state) return;
  try {
    const found = await call("stop", { number: state.number });
    if (found.ok) {
      ended = true;
      enable();
      say("Stopped. The terminal says where the result is written; this page can be closed.");
    }
  } catch {
    say("The server does not answer.", true);
  }
}

async function begin(path) {
  try {
    const answer = await call(path), found = await answer.json();
    if (!answer.ok) throw new Error(found.error);
    show(found);
  } catch (error) {
    say(error instanceof TypeError ? "The server does not answer." : error.message || "The server does not answer.", true);
  }
}

// A number with its sign, which is no hyphen.
function signed(value, digits) {
  const told = Math.abs(value).toFixed(digits);
  return Number(told) === 0 ? told : `${value > 0 ? "+" : "−"}${told}`;
}

function element(name, text, kind) {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function patchImage(source, alt) {
  const picture = element("img");
  picture.src = source;
  picture.alt = alt;
  picture.loading = "lazy";
  picture.width = picture.height = 56;
  return picture;
}

// Presses the button that a letter stands for, unless something is being typed.
function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || !state || ended) return;
  if (["SELECT", "INPUT"].includes(event.target.tagName)) return;
  const button = document.querySelector(`[data-key="${CSS.escape(event.key.toLowerCase())}"]`);
  if (button && !button.disabled && !button.hidden && !event.repeat) {
    button.click();
    event.preventDefault();
  }
}
document.addEventListener("keydown", pressed);
at("stop").addEventListener("click", stop);
