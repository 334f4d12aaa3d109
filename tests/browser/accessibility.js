// Returns what is wrong with the page for people who see, hear or tap less well.
const wrong = [];
const shown = (element) =>
  element.checkVisibility({ visibilityProperty: true }) && !element.closest(".unseen, .skip");

// Structure
if (!document.documentElement.lang) wrong.push("no language");
if (document.querySelectorAll("h1").length !== 1) wrong.push("not one h1");
if (document.querySelectorAll("main").length !== 1) wrong.push("not one main");
const ids = [...document.querySelectorAll("[id]")].map(({ id }) => id);
for (const id of new Set(ids)) if (ids.filter((other) => other === id).length > 1) wrong.push(`id ${id} twice`);
let level = 1;
for (const heading of document.querySelectorAll("h1, h2, h3, h4")) {
  const own = Number(heading.tagName[1]);
  if (own > level + 1) wrong.push(`${heading.textContent} skips a level`);
  level = own;
}
for (const name of ["aria-controls", "aria-describedby", "aria-labelledby", "aria-activedescendant"]) {
  for (const element of document.querySelectorAll(`[${name}]`)) {
    for (const id of element.getAttribute(name).split(" ")) {
      if (!document.getElementById(id)) wrong.push(`${name} leads nowhere: ${id}`);
    }
  }
}

// Fields have labels, errors are said, lists of choices hold nothing but choices
for (const field of document.querySelectorAll("input, select")) {
  if (!field.labels?.length && !field.ariaLabel) wrong.push(`${field.id || field.name} has no label`);
}
for (const list of document.querySelectorAll("[role=listbox]")) {
  const options = [...list.querySelectorAll("[role=option]")];
  const chosen = options.filter((option) => option.ariaSelected === "true").length;
  if (chosen > 1 && list.ariaMultiSelectable !== "true") wrong.push(`${list.id} has ${chosen} chosen at once`);
  if (options.some((option) => !(option.ariaLabel ?? option.textContent).trim())) wrong.push("a choice without a name");
}
for (const picture of document.querySelectorAll("svg")) {
  if (!picture.closest("[aria-hidden]") && !picture.ariaLabel) wrong.push("a picture without words");
}
for (const error of document.querySelectorAll(".error")) {
  if (!error.role && !document.querySelector(`[aria-describedby~="${error.id}"]`)) wrong.push(`${error.id} is said of nothing`);
}

// Sizes: WCAG 2.2, 24 by 24 pixels at least
for (const control of document.querySelectorAll("button, input, select, summary, nav a")) {
  const { width, height } = control.getBoundingClientRect();
  if (shown(control) && (width < 24 || height < 24)) wrong.push(`${control.id || control.textContent} is small`);
}
if (document.documentElement.scrollWidth > innerWidth) {
  wrong.push(`the page is ${document.documentElement.scrollWidth} wide on a screen of ${innerWidth}`);
}
for (const table of document.querySelectorAll(".scroll")) {
  const { scrollWidth, clientWidth } = table;
  if (shown(table) && scrollWidth > clientWidth) wrong.push(`a table is ${scrollWidth} wide in a place of ${clientWidth}: ${table.innerText.slice(0, 40)}`);
}

// Contrast of every text with what is behind it
const numbers = (colour) => colour.match(/[\d.]+/g).map(Number);
const over = (front, back) => {
  const alpha = front[3] ?? 1;
  return [0, 1, 2].map((i) => front[i] * alpha + back[i] * (1 - alpha));
};
function ground(element) {
  const layers = [];
  for (let at = element; at; at = at.parentElement) {
    const colour = numbers(getComputedStyle(at).backgroundColor);
    layers.push(colour);
    if ((colour[3] ?? 1) === 1) break;
  }
  return layers.reverse().reduce((back, front) => over(front, back), [255, 255, 255]);
}
function luminance(colour) {
  const [r, g, b] = colour.slice(0, 3).map((part) => {
    const share = part / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
function contrast(front, back) {
  const [light, dark] = [luminance(front), luminance(back)].sort((a, b) => b - a);
  return (light + 0.05) / (dark + 0.05);
}
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (texts.nextNode()) {
  const element = texts.currentNode.parentElement;
  const text = texts.currentNode.textContent.trim();
  // Letters on the marks of the map lie on a disc, which is no background of theirs.
  if (!text || !shown(element) || element.closest("script, noscript, title, .mark")) continue;
  const style = getComputedStyle(element);
  const colour = numbers(element instanceof SVGElement ? style.fill : style.color);
  const size = parseFloat(style.fontSize);
  const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
  const back = ground(element);
  const found = contrast(over(colour, back), back);
  if (found < (large ? 3 : 4.5)) wrong.push(`contrast ${found.toFixed(2)} of “${text.slice(0, 40)}”`);
}

// Contrast of what is no text: the edge of every field, and words that stand in for a value
for (const field of document.querySelectorAll("input:not([type=range], [type=radio]), select")) {
  if (!shown(field)) continue;
  const back = ground(field.parentElement), style = getComputedStyle(field);
  const edge = contrast(over(numbers(style.borderTopColor), back), back);
  if (edge < 3) wrong.push(`contrast ${edge.toFixed(2)} of the edge of ${field.id}`);
  const hint = contrast(over(numbers(getComputedStyle(field, "::placeholder").color), ground(field)), ground(field));
  if (field.placeholder && hint < 4.5) wrong.push(`contrast ${hint.toFixed(2)} of the hint in ${field.id}`);
}
return wrong;
