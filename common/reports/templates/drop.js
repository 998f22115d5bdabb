"use strict";

const [zone, input, message, list] = ["drop", "file", "message", "answers"].map((id) =>
  document.getElementById(id),
);

input.addEventListener("change", () => input.files[0] && ask(input.files[0]));
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    zone.classList.toggle("over", kind === "dragenter" || kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files[0]) ask(event.dataTransfer.files[0]);
  });
}

async function ask(file) {
  message.className = "";
  message.textContent = `${file.name}: the levels are looking …`;
  list.replaceChildren();
  try {
    const response = await fetch("/answers", { method: "POST", body: file });
    const content = await response.json();
    if (!response.ok) throw new Error(content.error);
    message.textContent = file.name;
    list.replaceChildren(...content.levels.map(card));
  } catch (error) {
    message.className = "loss";
    message.textContent = `${file.name}: ${error.message}`;
  }
}

function card({ level, top, picture }) {
  const item = document.createElement("li");
  const heading = document.createElement("h2");
  heading.textContent = level;
  const image = document.createElement("img");
  image.src = picture;
  image.alt = `where ${level} looks for ${top[0][0]}`;
  const answers = document.createElement("ol");
  for (const [name, share] of top) {
    const line = document.createElement("li");
    line.textContent = `${name} ${(100 * share).toFixed(1)} %`;
    answers.append(line);
  }
  item.append(heading, image, answers);
  return item;
}
