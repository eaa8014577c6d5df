
// ---- Turns: what was said, as it comes and as it was, with its figures and what can be done from there.

const kMissWords = {
  unknown: 'the others are new',
  diverged: 'the others were never read in this order',
  evicted: 'the others were pushed out of the cache',
  expired: 'the others had been kept for too long',
  corrupt: 'the kept state of the others was damaged',
};

function figureWords(f) {
  const words = [counted(f.written, 'token')];
  if (f.speed) words.push(`${f.speed < 100 ? f.speed.toFixed(1) : Math.round(f.speed)} tokens/s`);
  words.push(`first after ${duration(f.first)}`);
  const why = f.cached < f.prompt && kMissWords[f.miss] ? `, ${kMissWords[f.miss]}` : '';
  words.push(`${count(f.cached)} of ${count(f.prompt)} prompt tokens cached${why}`);
  words.push(`seed ${f.seed}`);
  if (f.cut) words.push('ended by the limit of tokens');
  return words;
}

// Figures of turns are told once, with the answer; this tab remembers them.
const figures = (() => {
  const kMost = 1000;
  let kept;
  try {
    kept = new Map(JSON.parse(stored('sessionStorage', 'figures')));
  } catch {
    kept = new Map();
  }
  return {
    of: (response) => kept.get(response),
    keep(response, f) {
      kept.set(response, f);
      while (kept.size > kMost) kept.delete(kept.keys().next().value);
      store('sessionStorage', 'figures', JSON.stringify([...kept]));
    },
  };
})();

// An answer to a message stands by itself: models often begin it with a space.
const shownText = (text) => (server.chat ? text.trimStart() : text);

class TurnView {
  // `number` from 1.
  constructor(number, userText) {
    this.number = number;
    this.root = $('turn').content.firstElementChild.cloneNode(true);
    const part = (selector) => this.root.querySelector(selector);
    part('h2').textContent = `Turn ${number}`;
    const [user, assistant] = this.root.querySelectorAll('.who');
    user.textContent = server.chat ? 'You' : 'Your text';
    assistant.textContent = server.chat ? 'Krait' : 'Krait goes on';
    part('.user .text').textContent = userText;
    this.userText = userText;
    this.answer = part('.assistant .text').appendChild(document.createTextNode(''));
    this.box = part('.assistant .text');
    this.problem = part('.problem');
    this.figures = part('.figures');
    this.actions = part('.actions');
    this.actions.setAttribute('aria-label', `Turn ${number}`);
    this.text = '';    // of the answer
    this.coming = '';  // of it: not in the document yet
  }

  // Pieces of the answer are put in once a frame.
  append(text) {
    if (this.coming === '') requestAnimationFrame(() => this.flush());
    this.coming += text;
    this.text += text;
  }
  flush() {
    if (this.coming === '') return;
    this.answer.appendData(this.answer.length === 0 ? shownText(this.coming) : this.coming);
    this.coming = '';
    follow();
  }

  setBusy(busy) {
    this.root.classList.toggle('busy', busy);
    this.box.setAttribute('aria-busy', String(busy));
  }
  setFigures(words) {
    this.figures.textContent = words.join(' · ');
  }
  setProblem(text, harmless = false) {
    this.problem.textContent = text;
    this.problem.classList.toggle('harmless', harmless);
    this.problem.hidden = text === '';
  }
  // {text, label, act}: the label names the turn, for those who hear it. `always`: also while an answer is written.
  setActions(actions) {
    this.actions.replaceChildren(...actions.map((a) => button(a.always ? 'quiet always' : 'quiet', a.text, a.label, a.act)));
  }

  // A turn that the server keeps.
  complete(turn, isLast) {
    this.flush();
    this.setBusy(false);
    if (this.answer.data !== shownText(turn.assistant)) this.answer.data = shownText(turn.assistant);
    this.root.classList.toggle('empty', turn.assistant === '');
    this.setProblem('');
    const f = figures.of(turn.response_id);
    this.setFigures(f ? figureWords(f) : [counted(turn.completion_tokens, 'token'), `${count(turn.prompt_tokens)} read`]);
    this.offer(isLast);
  }

  offer(isLast) {
    const n = this.number;
    const actions = [
      { text: 'Copy', label: `Copy the answer of turn ${n}`, act: () => copyText(this.answer.data), always: true },
      { text: 'Edit', label: `Edit turn ${n}`, act: () => editTurn(n) },
      { text: 'Fork', label: `Fork after turn ${n}`, act: () => forkAfter(n) },
    ];
    if (isLast) actions.push({ text: 'Regenerate', label: `Regenerate the answer of turn ${n}`, act: () => regenerate() });
    else actions.push({ text: 'Rewind', label: `Rewind to turn ${n}`, act: () => rewindTo(n) });
    this.setActions(actions);
  }

  // A turn that came to nothing: the server keeps whole turns only.
  fail(why, harmless) {
    this.flush();
    this.setBusy(false);
    this.root.classList.add('lost');
    this.setFigures([]);
    this.setProblem(why, harmless);
    this.setActions([
      { text: 'Try again', label: 'Send this message again', act: () => send(this.userText) },
      { text: 'Edit', label: 'Edit this message', act: () => takeBackDraft() },
    ]);
  }
}

async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    alertUser('Copied.', true);
  } catch {
    alertUser('The browser does not let this page copy: select the text instead.');
  }
}

// ---- The log of the conversation that is shown.

const kShown = 100;  // turns at first; more on demand
let following = true;  // the end stays in view

function follow() {
  const log = $('log');
  if (following) log.scrollTop = log.scrollHeight;
}
function goToEnd() {
  following = true;
  $('latest').hidden = true;
  follow();
}

function viewOf(turn, number, isLast) {
  const view = new TurnView(number, turn.user);
  view.complete(turn, isLast);
  return view;
}

function showTurns(conversation) {
  const n = conversation.turns.length;
  conversation.from = Math.max(0, n - kShown);
  conversation.views = conversation.turns.slice(conversation.from)
    .map((t, i) => viewOf(t, conversation.from + i + 1, conversation.from + i + 1 === n));
  $('turns').replaceChildren(...conversation.views.map((v) => v.root));
  if (conversation.draft) $('turns').append(conversation.draft.root);
  showSurroundings(conversation);
  goToEnd();
}

function showEarlier() {
  const c = current;
  const log = $('log');
  const from = Math.max(0, c.from - kShown);
  const more = c.turns.slice(from, c.from).map((t, i) => viewOf(t, from + i + 1, false));
  const below = log.scrollHeight - log.scrollTop;
  $('turns').prepend(...more.map((v) => v.root));
  c.views.unshift(...more);
  c.from = from;
  showSurroundings(c);
  log.scrollTop = log.scrollHeight - below;
}

// What stands where no turns are, and above those that are shown.
function showSurroundings(conversation) {
  $('earlier').hidden = conversation.from === 0;
  $('turns').start = conversation.from + 1;
  const empty = conversation.turns.length === 0 && !conversation.draft;
  $('welcome').hidden = !empty;
  if (!empty) return;
  $('welcome-head').textContent = server.model || 'Krait';
  if (!server.model) {
    $('welcome-text').textContent = '';
  } else if (conversation.tokens > 0) {
    $('welcome-text').textContent =
      `This conversation goes on from an imported state that has read ${counted(conversation.tokens, 'token')}. ` +
      'Their text is not part of a state, so it is not shown.';
  } else {
    $('welcome-text').textContent = (server.chat ? 'Write something to begin.' : 'Begin a text, and the model goes on with it.') +
      ` All that it remembers of a conversation is a state of ${bytes(server.state_bytes)}, however long it becomes.`;
  }
}

// A last turn that came to nothing goes when the next one is sent.
function dropDraft(conversation) {
  if (!conversation.draft) return;
  conversation.draft.root.remove();
  conversation.draft = null;
  live.delete(conversation.id);
  if (conversation === current) showSurroundings(conversation);
}

function takeBackDraft() {
  const text = current.draft.userText;
  dropDraft(current);
  showList();
  putMessage(text);
}

function showFacts() {
  const c = current;
  const words = server.model ? [`State ${bytes(server.state_bytes)}`] : [];
  const tokens = c.tokens + (c.running ? c.running.written : 0);
  if (tokens > 0) words.push(counted(tokens, 'token'));
  if (c.turns.length > 0) words.push(counted(c.turns.length, 'turn'));
  $('facts').textContent = words.join(' · ') || '\u00a0';
}
