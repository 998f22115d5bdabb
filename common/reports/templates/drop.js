"use strict";

const find = (id) => document.getElementById(id);
const [zone, input, message, list, data] = ["drop", "file", "message", "answers", "data"].map(find);
const PAUSE = 1500; // ms between looks at what is being measured
let last = null; // the file that was asked about
let asked = 0; // how often; an answer to an earlier question comes too late

input.addEventListener("change", () => input.files[0] && ask(input.files[0]));
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    zone.classList.toggle("over", kind === "dragenter" || kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files[0]) ask(event.dataTransfer.files[0]);
  });
}
data?.addEventListener("change", async () => {
  clear(`${data.value}: loading its levels …`);
  const mine = ++asked;
  try {
    await look(data.value);
    if (mine !== asked) return;
    say("");
    if (last) await ask(last);
  } catch (error) {
    if (mine === asked) fail(data.value, error);
  }
});
watch();

function make(kind, text, name) {
  const element = document.createElement(kind);
  if (text) element.textContent = text;
  if (name) element.className = name;
  return element;
}

function say(text, name = "") {
  message.className = name;
  message.textContent = text;
}

function fail(what, error) {
  say(`${what}: ${error.message}`, "loss");
}

function clear(text) {
  say(text);
  find("verdict").textContent = "";
  find("shown").replaceChildren();
  list.replaceChildren();
}

// The page of a data set, as the server has it now.
async function pageOf(name) {
  const response = await fetch(`/?data=${encodeURIComponent(name)}`);
  if (!response.ok) throw new Error((await response.json()).error);
  return new DOMParser().parseFromString(await response.text(), "text/html");
}

// The levels of a data set in place of those that are shown.
async function look(name) {
  const page = await pageOf(name);
  for (const choose of ["#about", "header .quiet"]) {
    document.querySelector(choose).replaceWith(page.querySelector(choose));
  }
}

// While levels are loaded and doubts measured: look again, and when all is there, ask again.
async function watch() {
  for (;;) {
    await new Promise((done) => setTimeout(done, PAUSE));
    const { name, pending } = find("about").dataset;
    if (pending === undefined) continue;
    const page = await pageOf(name).catch((error) => error);
    const about = find("about");
    if (about.dataset.name !== name) continue;
    if (page instanceof Error) {
      fail(name, page);
      find("loading")?.remove();
      delete about.dataset.pending;
      continue;
    }
    const whole = !page.querySelector("#about[data-pending]");
    if (whole || find("loading")) about.replaceWith(page.querySelector("#about"));
    if (whole && last) ask(last);
  }
}

async function ask(file) {
  const mine = ++asked;
  last = file;
  clear(`${file.name}: the levels are looking …`);
  try {
    const name = encodeURIComponent(find("about").dataset.name);
    const response = await fetch(`/answers?data=${name}`, { method: "POST", body: file });
    const content = await response.json();
    if (mine !== asked) return;
    if (!response.ok) throw new Error(content.error);
    say(file.name);
    find("verdict").textContent = content.verdict;
    find("shown").replaceChildren(...pictures(content));
    list.replaceChildren(...content.levels.map(card));
  } catch (error) {
    if (mine === asked) fail(file.name, error);
  }
}

function pictures({ dropped, inputs }) {
  const [width, height] = dropped.size;
  const small = Math.max(width, height) < 200 ? "pixels" : "";
  const shown = [figure(dropped.picture, `as it was dropped, ${width} × ${height} pixels`, small)];
  for (const { picture, side, levels } of inputs) {
    const who = inputs.length > 1 ? levels.join(", ") : "the networks";
    shown.push(figure(picture, `as ${who} see it, ${side} × ${side} pixels`, "pixels"));
  }
  return shown;
}

function figure(picture, text, name) {
  const whole = make("figure");
  const image = make("img", "", name);
  image.src = picture;
  image.alt = `the picture ${text}`;
  whole.append(image, make("figcaption", text));
  return whole;
}

function card({ level, first, others, picture, sure, far }) {
  const item = make("li");
  const image = make("img");
  image.src = picture;
  image.alt = `where ${level} looks for ${first[0][0]}`;
  item.append(make("h2", level), image);
  if (far) item.append(make("p", "not one of these classes, perhaps", "doubt"));
  if (sure === false) item.append(make("p", "not sure", "doubt"));
  if (sure) item.append(make("p", "sure"));
  item.append(bars(first));
  if (others.length) {
    const rest = make("details");
    rest.append(make("summary", `all ${first.length + others.length} classes`), bars([...first, ...others]));
    item.append(rest);
  }
  return item;
}

function bars(shares) {
  const all = make("ol", "", "shares");
  for (const [name, share] of shares) {
    const percent = `${(100 * share).toFixed(1)} %`;
    const line = make("li");
    const bar = make("span", "", "bar");
    bar.setAttribute("aria-hidden", "true");
    bar.append(make("span"));
    bar.firstChild.style.width = `${100 * share}%`;
    line.append(make("span", name), " ", make("span", percent), bar);
    all.append(line);
  }
  return all;
}
