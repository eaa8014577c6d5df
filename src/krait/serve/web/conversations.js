
// ---- Conversations: the list, and what can be done with one of them.

const kListed = 200;
let listed = [];                      // as the server tells
const live = new Map();               // id -> conversation with a turn that the server does not keep (yet)
let current = newConversation();

function newConversation(id = newId('web-')) {
  return { id, model: '', exists: false, turns: [], tokens: 0, views: [], from: 0, draft: null, running: null };
}
function conversationOf(json) {
  return { ...newConversation(json.conversation_id), model: json.model, exists: true, turns: json.history, tokens: json.tokens };
}

// Titles are the browser's own: what the user named, or the first words of what was said.
const titles = (() => {
  const kMost = 2000, kLength = 60;
  let all;
  try {
    all = new Map(JSON.parse(stored('localStorage', 'titles')));
  } catch {
    all = new Map();
  }
  const save = () => {
    while (all.size > kMost) all.delete(all.keys().next().value);
    store('localStorage', 'titles', JSON.stringify([...all]));
  };
  return {
    of: (id) => (all.has(id) ? all.get(id).text : ''),
    name(id, text) {
      all.set(id, { text, own: true });
      save();
    },
    learn(conversation) {
      const first = conversation.turns[0];
      if (!first || (all.has(conversation.id) && all.get(conversation.id).own)) return;
      const text = first.user.trim().replace(/\s+/g, ' ');
      all.set(conversation.id, { text: text.length > kLength ? text.slice(0, kLength) + '…' : text, own: false });
      save();
    },
    forget(id) {
      all.delete(id);
      save();
    },
  };
})();
const titleOf = (id) => titles.of(id) || id;

async function refreshList() {
  const answer = await attempt(() => requestJson('GET', `v1/states?limit=${kListed}`));
  if (!answer) return;
  listed = answer.data;
  showList();
  // Somebody else may have gone on with what is shown.
  const mine = listed.find((c) => c.conversation_id === current.id);
  if (mine && !current.running && mine.turns !== current.turns.length) await reopen(current.id);
}

function listEntry(id, title, facts) {
  const item = element('li');
  const b = button('entry', '', null, () => { closeSidebar(); openConversation(id); });
  const c = live.get(id);
  b.dataset.id = id;
  if (id === current.id) b.setAttribute('aria-current', 'true');
  b.append(element('span', 'entry-title', title),
           element('span', 'entry-facts', c ? (c.running ? 'being written…' : facts || 'not sent') : facts));
  item.append(b);
  return item;
}

function showList() {
  const focused = document.activeElement && document.activeElement.dataset.id;
  const items = [...live.values()].filter((c) => !listed.some((l) => l.conversation_id === c.id))
    .map((c) => listEntry(c.id, c.draft.userText, ''));
  for (const c of listed) {
    items.push(listEntry(c.conversation_id, titleOf(c.conversation_id), `${counted(c.turns, 'turn')}, ${ago(c.last_used)}`));
  }
  if (listed.length >= kListed) items.push(element('li', 'hint', `Only the last ${kListed} are listed.`));
  $('list').replaceChildren(...items);
  $('list-empty').hidden = items.length > 0;
  const again = focused && $('list').querySelector(`[data-id="${focused}"]`);
  if (again) again.focus();
}

function show(conversation) {
  current = conversation;
  if (conversation.exists) titles.learn(conversation);
  showTurns(conversation);
  showHead();
  showList();
  showComposer();
  const hash = conversation.exists ? '#' + conversation.id : '';
  if (location.hash !== hash) history.pushState(null, '', hash || location.pathname);
}

function showHead() {
  const name = current.exists || titles.of(current.id) ? titleOf(current.id) : 'New conversation';
  $('title').textContent = name;
  document.title = current.exists ? `${name} – Krait` : 'Krait';
  for (const id of ['rename', 'export', 'delete']) $(id).disabled = !current.exists;
  showModel();
  showFacts();
}

let wanted = '';  // what was asked for last, if it is still to come

// False: it could not be shown.
async function openConversation(id) {
  wanted = id;
  if (live.has(id)) {
    show(live.get(id));
    return true;
  }
  const json = await attempt(() => requestJson('GET', statePath(id)));
  if (wanted !== id || !json) return false;
  alertUser('');
  show(conversationOf(json));
  return true;
}

function reopen(id) {
  live.delete(id);
  return openConversation(id);
}

function startNew() {
  wanted = '';
  alertUser('');
  closeSidebar();
  show(newConversation());
  $('message').focus();
}

async function rename() {
  const c = current;
  const name = await ask('Rename', 'This browser alone knows the title.', 'Rename', titleOf(c.id));
  if (name === null) return;
  if (name) titles.name(c.id, name);
  else titles.forget(c.id);
  titles.learn(c);
  showHead();
  showList();
}

async function remove() {
  const c = current;
  if (!(await ask('Delete this conversation?', `“${titleOf(c.id)}” and its state are deleted on the server.`, 'Delete'))) return;
  if (c.running) c.running.stop();
  if (!(await attempt(() => request('DELETE', statePath(c.id))))) return;
  titles.forget(c.id);
  live.delete(c.id);
  listed = listed.filter((l) => l.conversation_id !== c.id);
  startNew();
  announce('Deleted.');
}

// Cuts the turns behind the first `n` off; the conversation as it is then, or undefined.
async function cutTo(conversation, n) {
  const json = await attempt(() => requestJson('POST', statePath(conversation.id, '/rewind'), { json: { turns: n } }));
  if (!json) return undefined;
  show(conversationOf(json));
  refreshList();
  return current;
}

async function rewindTo(n) {
  const c = current;
  const behind = c.turns.length - n;
  const sure = await ask(`Rewind to turn ${n}?`, `This takes ${counted(behind, 'turn')} back. To keep everything, fork instead.`, 'Rewind');
  if (!sure || !(await cutTo(c, n))) return;
  announce(`Rewound to turn ${n}.`);
  $('message').focus();
}

async function editTurn(n) {
  const c = current;
  const text = c.turns[n - 1].user;
  const cut = c.turns.length - n + 1;
  const what = cut === 1 ? 'This turn is' : `This turn and the ${counted(cut - 1, 'turn')} behind it are`;
  if (!(await ask(`Edit turn ${n}?`, `${what} taken back, and your message is put into the message box. To keep everything, fork instead.`, 'Edit'))) return;
  if (await cutTo(c, n - 1)) putMessage(text);
}

async function regenerate() {
  const text = current.turns.at(-1).user;
  if (!(await ask('Regenerate?', 'The answer that is there is taken back. To keep it, fork instead.', 'Regenerate'))) return;
  if (!(await cutTo(current, current.turns.length - 1))) return;
  if (settings.seed !== null) alertUser('The seed is fixed: with the same settings the answer will be the same.', true);
  $('message').focus();
  await send(text);
}

async function forkAfter(n) {
  const c = current;
  const json = await attempt(() => requestJson('POST', statePath(c.id, '/fork'),
                                               { json: { turns: n, conversation_id: newId('web-') } }));
  if (!json) return;
  titles.name(json.conversation_id, `${titleOf(c.id)} (fork)`);
  show(conversationOf(json));
  announce(`Forked after turn ${n}. This is the new conversation.`);
  $('message').focus();
  refreshList();
}

async function exportState() {
  const c = current;
  const response = await attempt(() => request('GET', statePath(c.id, '/file')));
  const blob = response && (await attempt(() => response.blob()));
  if (!blob) return;
  const link = element('a');
  link.href = URL.createObjectURL(blob);
  link.download = c.id + '.state';
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  alertUser(`Exported: ${bytes(blob.size)}.`, true);
}

async function importState(file) {
  const id = newId('import-');
  const json = await attempt(() => requestJson('POST', statePath(id), { body: file }));
  if (!json) return;
  titles.name(id, file.name.replace(/\.state$/, ''));
  closeSidebar();
  show(conversationOf(json));
  alertUser('Imported.', true);
  $('message').focus();
  refreshList();
}
