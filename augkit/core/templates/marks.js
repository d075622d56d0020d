// Marks of charts show their text on hover and on focus. Without this script browsers show each mark's <title>.
(() => {
  'use strict';
  // aria-label says the same as <title>, whose own tip would lie over ours.
  document.querySelectorAll('svg .mark > title').forEach((title) => title.remove());
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
  const fade = (mark, on) => mark.dataset.group && mark.closest('svg').querySelectorAll('[data-group]').forEach(
    (other) => other.classList.toggle('faded', on && other.dataset.group !== mark.dataset.group));
  const hide = () => {
    if (shown) fade(shown, false);
    shown = null;
    tip.hidden = true;
  };
  const show = (event) => {
    const mark = event.target instanceof Element ? event.target.closest('svg .mark') : null;
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
  document.addEventListener('hidetip', hide);
  document.addEventListener('keydown', (event) => { if (event.key === 'Escape') hide(); });
  document.addEventListener('scroll', place, true);
})();
