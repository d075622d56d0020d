// One legend that hides an arm in all charts. Without this script the page shows the legend as a plain list.
(() => {
  'use strict';
  document.documentElement.classList.add('live');
  const drawn = [...document.querySelectorAll('figure svg [data-group], .key [data-group]')];
  const buttons = [...document.querySelectorAll('.legend button[data-group]')];
  const press = (button, on) => {
    button.setAttribute('aria-pressed', String(on));
    drawn.filter((mark) => mark.dataset.group === button.dataset.group)
      .forEach((mark) => mark.classList.toggle('off', !on));
  };
  buttons.forEach((button) => button.addEventListener('click', () => {
    document.dispatchEvent(new Event('hidetip'));
    press(button, button.getAttribute('aria-pressed') !== 'true');
  }));
  document.querySelectorAll('.legend button[data-all]').forEach((all) =>
    all.addEventListener('click', () => buttons.forEach((button) => press(button, all.dataset.all === 'true'))));
})();
