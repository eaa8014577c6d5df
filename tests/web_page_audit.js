// Faults of the page as it stands: [what, where].
(() => {
  const faults = [];
  const where = (e) => e.tagName.toLowerCase() + (e.id ? '#' + e.id : '.' + e.className);
  const visible = (e) => e.checkVisibility({ visibilityProperty: true, opacityProperty: true }) && e.getClientRects().length > 0;
  const ids = new Set();
  for (const e of document.querySelectorAll('[id]')) {
    if (ids.has(e.id)) faults.push(['id twice', where(e)]);
    ids.add(e.id);
  }
  for (const a of ['aria-labelledby', 'aria-describedby', 'aria-controls', 'for'])
    for (const e of document.querySelectorAll(`[${a}]`))
      for (const id of e.getAttribute(a).split(' ')) if (!ids.has(id)) faults.push([`${a} leads nowhere`, where(e)]);
  for (const e of document.querySelectorAll('[tabindex]')) if (e.tabIndex > 0) faults.push(['tabindex above 0', where(e)]);
  for (const e of document.querySelectorAll('[style*="position"], [onclick], style, script:not([src])')) faults.push(['inline', where(e)]);
  if (!document.documentElement.lang) faults.push(['no lang', 'html']);
  if (document.querySelectorAll('main').length !== 1 || document.querySelectorAll('h1').length !== 1) faults.push(['one main, one h1', '']);
  if (document.documentElement.scrollWidth > innerWidth) faults.push(['wider than the window', String(document.documentElement.scrollWidth)]);
  const context = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
  const rgba = (color) => { context.clearRect(0, 0, 1, 1); context.fillStyle = color; context.fillRect(0, 0, 1, 1);
                            return [...context.getImageData(0, 0, 1, 1).data]; };
  const light = (c) => { const [r, g, b] = c.map((v) => (v /= 255, v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4));
                         return .2126 * r + .7152 * g + .0722 * b; };
  const behind = (e) => {
    const layers = [];
    for (; e; e = e.parentElement) {
      const c = rgba(getComputedStyle(e).backgroundColor);
      layers.push(c);
      if (c[3] === 255) break;
    }
    return layers.reverse().reduce((under, c) => under.map((v, i) => v + (c[i] - v) * c[3] / 255), [255, 255, 255]);
  };
  const modal = document.querySelector('dialog[open]');
  const all = [...(modal || document.body).querySelectorAll('*')].filter(visible);
  for (const e of all) {
    if (![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()) || e.closest('.unseen, .skip, :disabled, [aria-disabled=true], noscript')) continue;
    const [a, b] = [light(rgba(getComputedStyle(e).color).slice(0, 3)), light(behind(e))].sort((x, y) => y - x);
    const ratio = (a + .05) / (b + .05);
    if (ratio < 4.5) faults.push([`contrast ${ratio.toFixed(2)}`, where(e) + ' ' + e.textContent.slice(0, 30)]);
  }
  for (const e of all.filter((x) => x.matches('button, input, a[href], textarea') && !x.matches('.unseen, .skip'))) {
    const r = e.getBoundingClientRect();
    if (r.width < 24 || r.height < 24) faults.push(['smaller than 24 x 24', where(e)]);
  }
  return faults;
})()
