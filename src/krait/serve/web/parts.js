
// ---- Parts that the rest is built from.

const $ = (id) => document.getElementById(id);

// A button, or any element, with text.
function element(tag, className, text) {
  const e = document.createElement(tag);
  if (className) e.className = className;
  if (text !== undefined) e.textContent = text;
  return e;
}
function button(className, text, label, act) {
  const b = element('button', className, text);
  b.type = 'button';
  if (label) b.setAttribute('aria-label', label);
  b.addEventListener('click', act);
  return b;
}

const count = (n) => n.toLocaleString('en');
const counted = (n, word) => `${count(n)} ${word}${n === 1 ? '' : 's'}`;

function bytes(n) {
  const units = ['B', 'KiB', 'MiB', 'GiB'];
  let i = 0;
  for (; n >= 1024 && i < units.length - 1; ++i) n /= 1024;
  return `${n < 10 && i > 0 ? n.toFixed(1) : Math.round(n)} ${units[i]}`;
}

function duration(ms) {
  return ms < 1000 ? `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms` : `${(ms / 1000).toFixed(ms < 10000 ? 2 : 1)} s`;
}

function ago(unixSeconds) {
  const s = Math.max(0, Date.now() / 1000 - unixSeconds);
  if (s < 60) return 'just now';
  if (s < 3600) return `${Math.floor(s / 60)} min ago`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ago`;
  return new Date(unixSeconds * 1000).toLocaleDateString();
}

function newId(prefix) {
  const random = crypto.getRandomValues(new Uint8Array(12));
  return prefix + Array.from(random, (b) => b.toString(16).padStart(2, '0')).join('');
}

// For those who hear the page.
function announce(text) {
  $('status').textContent = text;
}

let alertTimer = 0;
// For all; goes by itself if it is no error.
function alertUser(text, passing = false) {
  clearTimeout(alertTimer);
  $('alert-text').textContent = text;
  $('alert').classList.toggle('good', passing);
  $('alert-close').hidden = text === '';
  if (passing && text) alertTimer = setTimeout(() => alertUser(''), 6000);
}

// Runs what may fail, and says so.
async function attempt(work) {
  try {
    return await work();
  } catch (e) {
    if (e.name !== 'AbortError') alertUser(e.message);
    return undefined;
  }
}

// A dialog with a form: what `read` returns on submit (undefined: stay open), or null if it was left. Browsers put the
// focus back where it was.
function showDialog(dialog, read) {
  return new Promise((resolve) => {
    let result = null;
    const form = dialog.querySelector('form');
    const submit = (event) => {
      event.preventDefault();
      const value = read();
      if (value === undefined) return;
      result = value;
      dialog.close();
    };
    const cancel = (event) => {
      if (event.target === dialog || event.target.closest('[data-cancel]')) dialog.close();  // dialog: its backdrop
    };
    const closed = () => {
      form.removeEventListener('submit', submit);
      dialog.removeEventListener('click', cancel);
      resolve(result);
    };
    form.addEventListener('submit', submit);
    dialog.addEventListener('click', cancel);
    dialog.addEventListener('close', closed, { once: true });
    dialog.showModal();
  });
}

// Yes or no; with `input` a text. False or null: no.
function ask(head, text, ok, input) {
  $('ask-head').textContent = head;
  $('ask-text').textContent = text;
  $('ask-text').hidden = text === '';
  $('ask-ok').textContent = ok;
  $('ask-field').hidden = input === undefined;
  $('ask-input').value = input || '';
  const answer = showDialog($('ask'), () => (input === undefined ? true : $('ask-input').value.trim()));
  if (input === undefined) $('ask-ok').focus();
  else $('ask-input').select();
  return answer;
}

let keyQuestion = null;
// True: there is a key to try. Several requests that are refused at once ask once.
function askForKey(refused) {
  if (!keyQuestion) {
    $('key-problem').textContent = refused ? 'The server does not take this key.' : '';
    $('key').value = '';
    keyQuestion = showDialog($('key-dialog'), () => $('key').value.trim() || undefined).then((value) => {
      keyQuestion = null;
      if (value) useKey(value);
      return value !== null;
    });
    $('key').focus();
  }
  return keyQuestion;
}
