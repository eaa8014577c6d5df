
// ---- The page: the message box, answers as they come, and what starts it all.

const server = { model: '', models: [], chat: false, state_bytes: 0 };
const kMostSpoken = 2000;  // characters of an answer that a screen reader is given at once
const kLiveEvery = 250;  // ms between updates of the figures while an answer is written

// A conversation stays with the model, or adapter of it, that began it; a new one gets what was chosen last.
function modelOf(conversation) {
  if (conversation.model) return conversation.model;
  const chosen = stored('localStorage', 'model');
  return server.models.includes(chosen) ? chosen : server.model;
}

function showModel() {
  $('model').hidden = server.models.length < 2;
  $('model').value = modelOf(current);
  $('model').disabled = current.exists || current.running !== null;
}

async function loadModels() {
  const answer = await attempt(() => requestJson('GET', 'v1/models'));
  server.models = answer ? answer.data.map((m) => m.id) : [];
  $('model').replaceChildren(...server.models.map((id) => element('option', '', id)));
  showModel();
}

function showComposer() {
  const message = $('message');
  message.style.height = 'auto';
  message.style.height = `${message.scrollHeight + 2}px`;  // and its border
  const running = current.running !== null;
  $('send').textContent = running ? 'Stop' : 'Send';
  $('send').classList.toggle('stop', running);
  $('send').setAttribute('aria-disabled', String(!running && message.value.trim() === ''));
  $('main').classList.toggle('running', running);
  if (running) showProgress(current);
  for (const b of document.querySelectorAll('#turns .actions button:not(.always)')) b.disabled = running;
}

function putMessage(text) {
  $('message').value = text;
  showComposer();
  $('message').focus();
}

// The figures of an answer that is being written.
function showProgress(conversation) {
  if (conversation !== current) return;
  const { begun, first, written, at } = conversation.running;
  const now = performance.now();
  const words = [];
  if (conversation.running.broken) words.push('The connection broke off; taking the answer up again…');
  else if (written === 0) words.push(`Waiting for the first token… ${duration(Math.floor((now - begun) / 100) * 100)}`);
  else {
    words.push(counted(written, 'token'));
    if (written > 1) words.push(`${((written - 1) / Math.max(now - at, 1) * 1e3).toFixed(1)} tokens/s`);
    words.push(`first after ${duration(first)}`);
  }
  $('progress').textContent = words.join(' · ');
  showFacts();
}

// What came of the answer: `id` of the response. The conversation has one turn more.
function commit(conversation, model, text, id, result) {
  const { view } = conversation.running;
  figures.keep(id, result);
  const turn = { response_id: id, user: text, assistant: view.text,
                 prompt_tokens: result.prompt - conversation.tokens, completion_tokens: result.written };
  const before = conversation.views.at(-1);
  if (before) before.offer(false);
  conversation.turns.push(turn);
  conversation.views.push(view);
  conversation.tokens = result.prompt + result.written;
  conversation.exists = true;
  conversation.model = model;
  conversation.draft = null;
  view.complete(turn, true);
  titles.learn(conversation);
  return turn;
}

async function answer(conversation, text) {
  const running = conversation.running;
  const dialect = server.chat ? dialects.chat : dialects.text;
  let result = null;
  const hear = (event) => {
    const { text: piece, figures: end } = dialect.read(event);
    running.broken = false;
    if (piece) {
      if (running.written++ === 0) {
        running.at = performance.now();
        running.first = running.at - running.begun;
      }
      running.view.append(piece);
    }
    result = end || null;
    return result !== null;
  };
  const model = modelOf(conversation);
  const body = dialect.body(model, conversation.id, text, samplerOptions());
  const id = await stream(dialect.path, body, {
    signal: running.abort.signal, hear,
    broke: () => { running.broken = true; showProgress(conversation); },
  });
  return commit(conversation, model, text, id, result);
}

async function send(text) {
  const conversation = current;
  dropDraft(conversation);
  alertUser('');
  const view = new TurnView(conversation.turns.length + 1, text);
  const abort = new AbortController();
  conversation.draft = view;
  conversation.running = { view, abort, stop: () => abort.abort(), begun: performance.now(), first: 0, written: 0, at: 0, broken: false };
  live.set(conversation.id, conversation);
  showList();
  view.setBusy(true);
  $('turns').append(view.root);
  showSurroundings(conversation);
  showModel();
  showComposer();
  goToEnd();
  announce('Waiting for the answer.');
  const timer = setInterval(() => showProgress(conversation), kLiveEvery);
  let said;
  try {
    const turn = await answer(conversation, text);
    said = shownText(turn.assistant);
    if (said.length > kMostSpoken) said = said.slice(0, kMostSpoken) + '… The rest is in the conversation.';
    said = `Answer: ${said || 'empty.'}`;
  } catch (e) {
    said = abort.signal.aborted ? 'Stopped. The server keeps whole turns only: this one is not part of the conversation.' : e.message;
    view.fail(said, abort.signal.aborted);
  }
  clearInterval(timer);
  conversation.running = null;
  if (!conversation.draft) live.delete(conversation.id);
  if (conversation !== current) {
    said = `In “${titleOf(conversation.id)}”: ${said}`;
  } else {
    showHead();
    showComposer();
    follow();
    if (conversation.exists && location.hash !== '#' + conversation.id) history.replaceState(null, '', '#' + conversation.id);
  }
  announce(said);
  await refreshList();
}

function submit() {
  const text = $('message').value;
  if (text.trim() === '' || current.running) return $('message').focus();
  $('message').value = '';
  return send(text);
}

// ---- The list of conversations on narrow screens: over the page.

const narrow = matchMedia('(max-width: 760px)');

function openSidebar() {
  $('sidebar').classList.add('open');
  $('open-sidebar').setAttribute('aria-expanded', 'true');
  $('main').inert = true;
  $('close-sidebar').focus();
}
function closeSidebar() {
  if (!$('sidebar').classList.contains('open')) return;
  $('sidebar').classList.remove('open');
  $('open-sidebar').setAttribute('aria-expanded', 'false');
  $('main').inert = false;
  if (narrow.matches) $('open-sidebar').focus();
}

// ---- The server's health, now and then.

function showServer(state, text) {
  $('dot').dataset.state = state;
  $('server').textContent = text;
}

async function checkHealth() {
  let health = null;
  try {
    const response = await fetch('health');
    health = await response.json();
  } catch {
    showServer('bad', 'The server cannot be reached');
    return false;
  }
  if (health.status !== 'healthy') {
    showServer('bad', health.status === 'loading' ? 'The model is being loaded' : 'The server is shutting down');
    return false;
  }
  Object.assign(server, { model: health.model, chat: health.chat, state_bytes: health.state_bytes });
  showServer('good', `${health.model}, Krait ${health.version}`);
  return true;
}

async function keepHealth() {
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, 30000));
    if (!document.hidden && (await checkHealth())) showFacts();
  }
}

function onKey(event) {
  if (event.key !== 'Escape' || event.defaultPrevented || document.querySelector('dialog[open]')) return;
  if ($('sidebar').classList.contains('open')) closeSidebar();
  else if (current.running) {
    current.running.stop();
    $('message').focus();
  }
}

function openFromAddress() {
  const id = location.hash.slice(1);
  if (!/^[A-Za-z0-9_-]{1,128}$/.test(id)) return show(newConversation());
  return id === current.id ? undefined : openConversation(id).then((shown) => shown || show(newConversation()));
}

function listen() {
  const on = (id, event, act) => $(id).addEventListener(event, act);
  on('composer', 'submit', (event) => {
    event.preventDefault();
    if (current.running) current.running.stop();
    else submit();
  });
  on('message', 'keydown', (event) => {
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    submit();
  });
  on('message', 'input', showComposer);
  on('model', 'change', () => store('localStorage', 'model', $('model').value));
  on('new', 'click', startNew);
  on('rename', 'click', rename);
  on('delete', 'click', remove);
  on('export', 'click', exportState);
  on('import', 'click', () => $('import-file').click());
  on('import-file', 'change', (event) => {
    const file = event.target.files[0];
    event.target.value = '';
    if (file) importState(file);
  });
  on('open-sidebar', 'click', openSidebar);
  on('close-sidebar', 'click', closeSidebar);
  on('alert-close', 'click', () => { alertUser(''); $('message').focus(); });
  on('latest', 'click', () => { goToEnd(); $('message').focus(); });
  on('earlier', 'click', showEarlier);
  on('log', 'scroll', () => {
    const log = $('log');
    following = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    $('latest').hidden = following;
  });
  narrow.addEventListener('change', closeSidebar);
  document.addEventListener('keydown', onKey);
  document.addEventListener('visibilitychange', () => { if (!document.hidden && server.model) refreshList(); });
  window.addEventListener('popstate', openFromAddress);
  window.addEventListener('resize', follow);
  window.addEventListener('beforeunload', (event) => { if ([...live.values()].some((c) => c.running)) event.preventDefault(); });
}

async function begin() {
  loadSettings();
  listen();
  showComposer();
  $('message').focus();
  while (!(await checkHealth())) await new Promise((resolve) => setTimeout(resolve, 2000));
  showFacts();
  showSurroundings(current);
  await refreshList();
  await loadModels();
  await openFromAddress();
  await keepHealth();
}

begin();
