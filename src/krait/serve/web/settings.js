
// ---- Settings of the sampler, kept by the browser.

const kDefaults = { temperature: 0.7, top_p: 0.9, max_tokens: 512, seed: null };
const settings = { ...kDefaults };
const kNames = { temperature: 'Temperature', top_p: 'Top-p', max_tokens: 'Most tokens of an answer', seed: 'Seed' };

// A field's value; undefined, with the reason in the dialog, if it is none that the server takes.
function readSetting(name) {
  const field = $(name);
  const empty = field.value === '' && !field.validity.badInput;
  const wrong = empty ? name !== 'seed' : !field.validity.valid;
  field.setAttribute('aria-invalid', String(wrong));
  if (!wrong) return empty ? null : Number(field.value);
  const whole = field.step === '1' ? 'a whole number' : 'a number';
  $('settings-problem').textContent = `${kNames[name]} wants ${whole}, ${count(Number(field.min))} to ${count(Number(field.max))}` +
    (field.step === '1' ? '.' : `, in steps of ${field.step}.`);
  field.focus();
  return undefined;
}

function readSettings() {
  $('settings-problem').textContent = '';
  const read = {};
  for (const name of Object.keys(kDefaults)) {
    read[name] = readSetting(name);
    if (read[name] === undefined) return undefined;
  }
  return read;
}

function showSettings(from) {
  for (const name of Object.keys(kDefaults)) {
    $(name).value = from[name] === null ? '' : from[name];
    $(name).setAttribute('aria-invalid', 'false');
  }
  $('settings-problem').textContent = '';
}

function nameSettings() {
  const seed = settings.seed === null ? '' : `, seed ${settings.seed}`;
  $('open-settings').textContent =
    `Settings: temperature ${settings.temperature}, top-p ${settings.top_p}, ${counted(settings.max_tokens, 'token')}${seed}`;
}

async function openSettings() {
  showSettings(settings);
  $('forget-key').hidden = apiKey === '';
  const read = await showDialog($('settings'), readSettings);
  if (!read) return;
  Object.assign(settings, read);
  store('localStorage', 'settings', JSON.stringify(settings));
  nameSettings();
}

// What the server gets: a seed that is null is drawn here, so that the same request can be sent again.
function samplerOptions() {
  const seed = settings.seed === null ? crypto.getRandomValues(new Uint32Array(1))[0] : settings.seed;
  return { ...settings, seed };
}

function loadSettings() {
  try {
    const kept = JSON.parse(stored('localStorage', 'settings'));
    showSettings({ ...kDefaults, ...kept });
    Object.assign(settings, readSettings() || kDefaults);
  } catch {
    Object.assign(settings, kDefaults);
  }
  nameSettings();
  $('open-settings').addEventListener('click', openSettings);
  $('settings-reset').addEventListener('click', () => showSettings(kDefaults));
  $('forget-key').addEventListener('click', () => {
    useKey('');
    $('settings').close();
    location.reload();
  });
}
