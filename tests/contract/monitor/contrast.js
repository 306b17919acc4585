// Which texts of the page have less contrast with what is behind them than WCAG AA asks for (4.5 to 1). What is faded
// on purpose is left out.
(() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const parents = (node) => (node ? [node, ...parents(node.parentElement)] : []);

  function rgba(color) {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    const [red, green, blue, alpha] = canvas.getImageData(0, 0, 1, 1).data;
    return [red, green, blue, alpha / 255];
  }

  const over = (top, under) => [0, 1, 2].map((at) => top[at] * top[3] + under[at] * (1 - top[3])).concat(1);
  const behind = (node) => parents(node).reverse()
    .map((one) => rgba(getComputedStyle(one).backgroundColor))
    .reduce((under, top) => over(top, under), [255, 255, 255, 1]);
  const light = (color) => color.slice(0, 3)
    .map((part) => (part / 255 <= 0.04045 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
  const faded = (node) => parents(node).some((one) => getComputedStyle(one).opacity < 1);

  const poor = new Set();
  let seen = 0;
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const text = walk.currentNode.textContent.trim();
    const node = walk.currentNode.parentElement;
    if (!text || node.closest("script, style, noscript") || !node.checkVisibility() || faded(node)) continue;
    const under = behind(node);
    const [high, low] = [light(over(rgba(getComputedStyle(node).color), under)), light(under)].sort((a, b) => b - a);
    seen += 1;
    if ((high + 0.05) / (low + 0.05) < 4.5) poor.add(`${node.className || node.tagName}: ${text}`);
  }
  return { seen, poor: [...poor] };
})();
