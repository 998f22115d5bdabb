"use strict";

// ---- tables that sort: a header's button sorts by its column, again the other way ----

for (const table of document.querySelectorAll("table.sortable")) {
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => {
    header.querySelector("button").addEventListener("click", () => {
      const order = header.ariaSort === "descending" ? "ascending" : "descending";
      headers.forEach((other) => other.removeAttribute("aria-sort"));
      header.ariaSort = order;
      const key = (row) => row.cells[column].dataset.sort ?? "";
      const compare = (a, b) => {
        const [x, y] = [key(a), key(b)];
        if (x === "" || y === "") return (x === "") - (y === ""); // what has no value stays last
        const numbers = !isNaN(x) && !isNaN(y);
        const difference = numbers ? x - y : x.localeCompare(y);
        return order === "ascending" ? difference : -difference;
      };
      table.tBodies[0].append(...[...table.tBodies[0].rows].sort(compare));
    });
  });
}

// ---- pictures that enlarge ----

const dialog = document.getElementById("enlarged");
for (const button of document.querySelectorAll("button.zoom")) {
  button.addEventListener("click", () => {
    const picture = button.querySelector("img");
    dialog.querySelector("img").src = picture.src;
    dialog.querySelector("img").alt = picture.alt;
    dialog.querySelector("p").textContent = picture.alt;
    dialog.showModal();
  });
}
dialog.addEventListener("click", (event) => {
  if (event.target === dialog || event.target.matches("button")) dialog.close();
});

// ---- what changed between two levels ----

const FIRST = matchMedia("(max-width: 30rem)").matches ? 4 : 6; // pictures, until more are asked for
const source = document.getElementById("gallery");
if (source) whatChanged(JSON.parse(source.textContent));

async function whatChanged(gallery) {
  const ids = ["from", "to", "kind", "maps"];
  const [from, to, kind, lit] = ids.map((id) => document.getElementById(id));
  const list = document.getElementById("changes");
  const counts = document.getElementById("counts");
  const more = document.getElementById("more");
  const sprite = new Image();
  sprite.src = gallery.sprite;
  await sprite.decode();

  const right = (level, i) => gallery.answers[level][i] === gallery.truths[i];
  const chosen = {
    fixed: (a, b, i) => !right(a, i) && right(b, i),
    broken: (a, b, i) => right(a, i) && !right(b, i),
    wrong: (a, b, i) => !right(a, i) && !right(b, i),
    all: () => true,
  };

  let most = FIRST; // pictures shown

  function show() {
    const [a, b] = [from.value, to.value];
    const rows = gallery.truths.map((_, i) => i).filter((i) => chosen[kind.value](a, b, i));
    const all = gallery.changes[`${a} ${b}`];
    const found = all
      ? `Of all ${gallery.total.toLocaleString("en")} test pictures, ${b} has ` +
        `${all.fixed.toLocaleString("en")} right that ${a} has wrong, and ` +
        `${all.broken.toLocaleString("en")} wrong that ${a} has right. `
      : "";
    counts.textContent = `${found}${rows.length} of the ${gallery.truths.length} pictures kept here:`;
    list.replaceChildren(...rows.slice(0, most).map((i) => card(i, a, b)));
    more.hidden = rows.length <= most;
    more.textContent = `Show all ${rows.length}`;
  }

  // The picture, and beside it what each level answered and where it looked.
  function card(i, a, b) {
    const item = document.createElement("li");
    const trio = document.createElement("div");
    trio.className = "trio";
    const plain = document.createElement("div");
    const truth = document.createElement("strong");
    truth.textContent = gallery.classes[gallery.truths[i]];
    plain.append(picture(i, null, truth.textContent), truth);
    trio.append(plain, ...[a, b].map((level) => answer(i, level)));
    item.append(trio);
    return item;
  }

  function answer(i, level) {
    const part = document.createElement("div");
    const name = gallery.classes[gallery.answers[level][i]];
    const verdict = right(level, i) ? "right" : "wrong";
    const words = `${name}, ${Math.round(100 * gallery.confidence[level][i])} %`;
    const line = document.createElement("div");
    line.className = verdict === "right" ? "gain" : "loss";
    line.textContent = `${words}: ${verdict}`;
    const whose = document.createElement("div");
    whose.className = "quiet";
    whose.textContent = level.split("_")[0].replace("level", "level ");
    if (gallery.maps[level] && lit.checked)
      part.append(picture(i, level, `${level}: where it looks for ${name}`));
    part.append(whose, line);
    return part;
  }

  function picture(i, level, words) {
    const [width, height] = gallery.size;
    const canvas = document.createElement("canvas");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", words);
    [canvas.width, canvas.height] = [4 * width, 4 * height];
    const context = canvas.getContext("2d");
    const [x, y] = [(i % gallery.columns) * width, Math.floor(i / gallery.columns) * height];
    context.drawImage(sprite, x, y, width, height, 0, 0, canvas.width, canvas.height);
    if (level) context.drawImage(heat(gallery.maps[level], i), 0, 0, canvas.width, canvas.height);
    return canvas;
  }

  // A map as a small canvas of its own, which the browser smooths when it is drawn larger.
  function heat({ width, height, values }, i) {
    const small = document.createElement("canvas");
    [small.width, small.height] = [width, height];
    const context = small.getContext("2d");
    const pixels = context.createImageData(width, height);
    const bytes = Uint8Array.from(atob(values), (c) => c.charCodeAt(0));
    for (let place = 0; place < width * height; place++) {
      const value = bytes[i * width * height + place];
      pixels.data.set(gallery.colours[value], 4 * place);
      pixels.data[4 * place + 3] = 64 + 0.45 * value;
    }
    context.putImageData(pixels, 0, 0);
    return small;
  }

  for (const control of [from, to, kind, lit]) {
    control?.addEventListener("change", () => {
      most = FIRST;
      show();
    });
  }
  more.addEventListener("click", () => {
    most = Infinity;
    show();
  });
  show();
}

// ---- diagnostics: one level at a time ----

const diagnosed = document.getElementById("diagnosed");
function diagnose() {
  for (const part of document.querySelectorAll("[data-level]")) {
    part.hidden = part.dataset.level !== diagnosed.value;
  }
}
if (diagnosed) {
  diagnosed.addEventListener("change", diagnose);
  diagnose();
}

// ---- what a link leads to is unfolded ----

function unfold() {
  const target = document.getElementById(location.hash.slice(1));
  const folded = target?.querySelectorAll("details") ?? [];
  if (folded.length === 1) folded[0].open = true;
}
addEventListener("hashchange", unfold);
unfold();
