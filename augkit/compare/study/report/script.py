"""Style and script of the charts: tips on hover and focus, and one legend that hides an arm everywhere.

Without the script the page shows the same charts, browsers' own tips (``<title>``) and a legend without buttons.
"""

from __future__ import annotations

CHART_STYLE = """
html { -webkit-text-size-adjust: 100%; }
.chart { display: block; width: 100%; max-width: 40rem; font: 12px system-ui, sans-serif; overflow: visible; }
.chart text { fill: #333; } .chart .small { font-size: 10px; fill: #666; }
.chart .grid { stroke: #e6e6e6; } .chart .axis { stroke: #777; } .chart .diagonal { stroke: #999;
  stroke-dasharray: 4 4; }
.chart .mark { cursor: pointer; outline: none; } .chart .hit { fill: #fff; fill-opacity: 0; stroke: none; }
.chart .mark:focus-visible .hit { stroke: #111; stroke-width: 2; }
.chart .faded { opacity: .18; } .chart .off { display: none; }
.charttitle { font-weight: 600; margin: 0 0 .3rem; color: #222; font-size: 1rem; }
.legend, .key { flex-wrap: wrap; gap: .35rem; margin: 0 0 1rem; padding: .5rem 0; list-style: none; }
.legend { display: none; position: sticky; top: 0; z-index: 2; max-height: 28vh; overflow-y: auto;
  background: #fff; border-bottom: 1px solid #ddd; }
.live .legend { display: flex; } .key { display: flex; } .live .key { display: none; }
.legend button, .key li { display: inline-flex; align-items: center; gap: .35rem; font: inherit; font-size: .88rem;
  color: #222; background: #fff; border: 1px solid #bbb; border-radius: 1rem; padding: .15rem .65rem .15rem .4rem;
  min-height: 1.9rem; flex: none; max-width: 100%; }
.key li { border: 0; } .legend button { cursor: pointer; } .legend button.all { padding-left: .65rem; color: #555; }
.legend button:focus-visible { outline: 2px solid #111; outline-offset: 1px; }
.legend [aria-pressed=false] { text-decoration: line-through; color: #767676; background: #f1f1f1; }
.legend [aria-pressed=false] svg, .key .off { opacity: .3; }
.legend svg, .key svg { flex: none; width: 34px; height: 16px; }
#tip { position: fixed; z-index: 3; pointer-events: none; max-width: min(20rem, 88vw); padding: .4rem .6rem;
  background: #222; color: #fff; border-radius: .3rem; font-size: .85rem; line-height: 1.35; white-space: pre-line;
  overflow-wrap: anywhere; }
#tip[hidden] { display: none; }
@media (max-width: 600px) { .chart { font-size: 14px; } .chart .small { font-size: 11px; }
  .legend { flex-wrap: nowrap; overflow-x: auto; } .legend button { max-width: none; white-space: nowrap; } }
.hint { display: none; margin: 1rem 0 0; } .live .hint { display: block; }
@media print { .hint, .live .hint, .legend, .live .legend, #tip { display: none !important; }
  .key, .live .key { display: flex; } .chart { max-width: 15cm; } }
"""

CHART_SCRIPT = """
(() => {
  'use strict';
  document.documentElement.classList.add('live');
  const drawn = [...document.querySelectorAll('.chart [data-arm], .key [data-arm]')];
  const buttons = [...document.querySelectorAll('.legend button[data-arm]')];
  // aria-label says the same as <title>, whose own tip would lie over ours.
  document.querySelectorAll('.chart .mark > title').forEach((title) => title.remove());
  const tip = document.body.appendChild(document.createElement('div'));
  tip.id = 'tip';
  tip.setAttribute('aria-hidden', 'true');
  tip.hidden = true;
  let shown = null;

  const place = () => {
    if (!shown) return;
    const mark = (shown.querySelector('.hit') || shown).getBoundingClientRect();
    const box = tip.getBoundingClientRect();
    const width = document.documentElement.clientWidth;
    const left = Math.min(mark.left + mark.width / 2 - box.width / 2, width - box.width - 6);
    const above = mark.top - box.height - 6;
    tip.style.left = Math.max(6, left) + 'px';
    tip.style.top = (above < 6 ? mark.bottom + 6 : above) + 'px';
  };
  const fade = (mark, on) => mark.closest('.chart').querySelectorAll('[data-arm]').forEach((other) =>
    other.classList.toggle('faded', on && other.dataset.arm !== mark.dataset.arm));
  const hide = () => {
    if (shown) fade(shown, false);
    shown = null;
    tip.hidden = true;
  };
  const show = (event) => {
    const mark = event.target instanceof Element ? event.target.closest('.chart [data-tip]') : null;
    if (mark === shown) return;
    hide();
    if (!mark) return;
    shown = mark;
    tip.textContent = mark.dataset.tip;
    tip.hidden = false;
    fade(mark, true);
    place();
  };
  document.addEventListener('pointerover', show);
  document.addEventListener('focusin', show);
  document.addEventListener('focusout', hide);
  document.addEventListener('keydown', (event) => { if (event.key === 'Escape') hide(); });
  document.addEventListener('scroll', place, true);

  const press = (button, on) => {
    button.setAttribute('aria-pressed', String(on));
    drawn.filter((mark) => mark.dataset.arm === button.dataset.arm)
      .forEach((mark) => mark.classList.toggle('off', !on));
  };
  buttons.forEach((button) => button.addEventListener('click', () => {
    hide();
    press(button, button.getAttribute('aria-pressed') !== 'true');
  }));
  document.querySelectorAll('.legend button[data-all]').forEach((all) =>
    all.addEventListener('click', () => buttons.forEach((button) => press(button, all.dataset.all === 'true'))));
})();
"""
