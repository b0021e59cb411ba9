// What is wrong with how the page looks: each a line, as [what, text or selector].
const found = [];
const wide = document.documentElement.scrollWidth;
if (wide > window.innerWidth) found.push(`the page is ${wide} wide, the window ${window.innerWidth}`);
const isHidden = (element) => element.closest('.quiet, [hidden]') || getComputedStyle(element.closest('thead') || element).position === 'absolute';
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
const boxes = [];
for (let node = walker.nextNode(); node; node = walker.nextNode()) {
  const text = node.data.trim();
  const element = node.parentElement;
  if (!text || isHidden(element)) continue;
  const size = parseFloat(getComputedStyle(element).fontSize);
  if (size < 12) found.push(`${size} px is small: ${text}`);
  const range = document.createRange();
  range.selectNodeContents(node);
  const lines = range.getClientRects().length;
  // What has no blank breaks in the middle.
  if (!text.includes(' ') && lines > 1 + text.length / 12) found.push(`broken into ${lines} lines: ${text}`);
  for (const box of range.getClientRects()) {
    if (box.width < 1) continue;
    if (box.left < 0 || box.right > window.innerWidth + 0.5) found.push(`beyond the edge: ${text}`);
    boxes.push({ text, left: box.left, right: box.right, top: box.top, bottom: box.bottom });
  }
  for (let around = element; around !== document.body; around = around.parentElement) {
    const style = getComputedStyle(around);
    const isCut = style.overflow !== 'visible' && around.tagName !== 'svg'
      && (around.scrollWidth > around.clientWidth + 1 || around.scrollHeight > around.clientHeight + 1);
    if (isCut) found.push(`cut: ${text}`);
  }
}
boxes.sort((one, other) => one.top - other.top);
boxes.forEach((one, index) => {
  for (let next = index + 1; next < boxes.length && boxes[next].top < one.bottom - 3; next += 1) {
    const other = boxes[next];
    if (Math.min(one.right, other.right) - Math.max(one.left, other.left) > 1) found.push(`over each other: ${one.text} | ${other.text}`);
  }
});
return { found, texts: boxes.length };
