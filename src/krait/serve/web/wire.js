// The page at "/" of krait serve. Text of users and models goes into the document by textContent alone.
'use strict';

// ---- The wire: requests, errors, streams of events that are taken up again where they broke off.

const kSilence = 60000;  // ms without a byte, heartbeats included, after which a stream counts as broken
const kTries = 6;        // to take a broken stream up again

class ServerError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;  // 0: no answer at all
    this.code = code;
  }
}

// Storage may be forbidden; the page works without.
function stored(area, name) {
  try {
    return window[area].getItem('krait.' + name);
  } catch {
    return null;
  }
}
function store(area, name, value) {
  try {
    if (value === null) window[area].removeItem('krait.' + name);
    else window[area].setItem('krait.' + name, value);
  } catch {
    // Not kept, then.
  }
}

let apiKey = stored('sessionStorage', 'key') || '';
function useKey(value) {
  apiKey = value;
  store('sessionStorage', 'key', value || null);
}

function errorOf(status, body, retryAfter) {
  const e = body && body.error ? body.error : {};
  let message = e.message ? e.message.replace(/^\[\w+\] /, '') : `The server answered with status ${status}.`;
  message = message[0].toUpperCase() + message.slice(1);
  if (!/[.!?]$/.test(message)) message += '.';
  if (retryAfter && (status === 429 || status === 503)) message += ` Try again in ${retryAfter} s.`;
  return new ServerError(status, e.code || '', message);
}

async function once(method, path, { json, body, signal, headers = {} } = {}) {
  const all = { ...headers };
  if (apiKey) all.Authorization = 'Bearer ' + apiKey;
  if (json !== undefined) all['Content-Type'] = 'application/json';
  if (body !== undefined) all['Content-Type'] = 'application/octet-stream';
  let response;
  try {
    response = await fetch(path, { method, headers: all, signal, body: json === undefined ? body : JSON.stringify(json) });
  } catch (e) {
    if (signal && signal.aborted) throw e;
    throw new ServerError(0, 'unreachable', 'The server cannot be reached.');
  }
  if (response.ok) return response;
  throw errorOf(response.status, await response.json().catch(() => null), response.headers.get('Retry-After'));
}

// Throws ServerError, or the AbortError of `signal`. Asks for the API key where one is wanted.
async function request(method, path, options) {
  for (let refused = false;; refused = true) {
    try {
      return await once(method, path, options);
    } catch (e) {
      if (e.status !== 401 || !(await askForKey(refused || apiKey !== ''))) throw e;
    }
  }
}

async function requestJson(method, path, options) {
  return (await request(method, path, options)).json();
}

const statePath = (id, more = '') => `v1/states/${encodeURIComponent(id)}${more}`;

function readWithin(reader, ms) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new ServerError(0, 'silence', 'The server went silent.')), ms);
    reader.read().then(resolve, reject).finally(() => clearTimeout(timer));
  });
}

// The events of a text/event-stream, until it ends or breaks off.
async function* eventsOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  let event = { id: '', event: '', data: [] };
  try {
    for (;;) {
      const { done, value } = await readWithin(reader, kSilence);
      if (done) return;
      const lines = (rest + value).split(/\r\n|\n/);
      rest = lines.pop();
      for (const line of lines) {
        if (line === '') {
          if (event.data.length) yield { id: event.id, event: event.event, data: event.data.join('\n') };
          event = { id: '', event: '', data: [] };
          continue;
        }
        const [, field, content] = /^([^:]*):? ?(.*)$/.exec(line);
        if (field === 'data') event.data.push(content);
        else if (field === 'id' || field === 'event') event[field] = content;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener('abort', () => { clearTimeout(timer); reject(signal.reason); }, { once: true });
  });
}

// What may be over in a moment: the server restarts, or has not noticed yet that the old connection is gone.
const passing = (e) => e instanceof ServerError && [0, 409, 429, 502, 503, 504].includes(e.status);

// Posts, and hands every event to `hear` until that returns true (the answer is complete). A stream that breaks off is
// taken up behind the last event that came: the server says the rest again, bit for bit. Returns the response's id.
async function stream(path, json, { signal, hear, broke }) {
  let response = await request('POST', path, { json, signal });
  const id = response.headers.get('X-Krait-Stream');
  let last = '';
  for (let tries = 0;;) {
    try {
      for await (const event of eventsOf(response)) {
        if (event.event === 'error') throw Object.assign(errorOf(500, JSON.parse(event.data)), { final: true });
        tries = 0;
        if (event.id) last = event.id;
        if (hear(event)) return id;
      }
    } catch (e) {
      if (signal.aborted || e.final || e instanceof SyntaxError) throw e;
    }
    for (response = null; !response;) {
      if (!id || ++tries > kTries) {
        throw new ServerError(0, 'stream_broken', 'The connection broke off, and the answer could not be taken up again.');
      }
      broke(tries);
      await pause(250 * 2 ** tries, signal);
      try {
        response = await request('GET', 'v1/streams/' + encodeURIComponent(id),
                                 { signal, headers: last ? { 'Last-Event-ID': last } : {} });
      } catch (e) {
        if (!passing(e)) throw e;
      }
    }
  }
}

// How the server is spoken to: messages if it puts them into a chat's form, a text to go on from if it does not.
const dialects = {
  chat: {
    path: 'v1/responses',
    body: (model, conversation, text, s) => ({
      model, conversation, input: text, stream: true, max_output_tokens: s.max_tokens,
      temperature: s.temperature, top_p: s.top_p, seed: s.seed,
    }),
    read(event) {
      const data = JSON.parse(event.data);
      if (data.type === 'response.output_text.delta') return { text: data.delta };
      if (data.type !== 'response.completed' && data.type !== 'response.incomplete') return {};
      const { krait, usage } = data.response;
      return { figures: figuresOf(usage.input_tokens, usage.output_tokens, krait.cached_tokens, krait.cache_miss,
                                  krait.timing, krait.seed, data.type === 'response.incomplete') };
    },
  },
  text: {
    path: 'generate',
    body: (model, conversation, text, s) => ({
      model, conversation_id: conversation, prompt: text, stream: true, max_tokens: s.max_tokens,
      temperature: s.temperature, top_p: s.top_p, seed: s.seed,
    }),
    read(event) {
      const data = JSON.parse(event.data);
      if (event.event !== 'done') return { text: data.text };
      return { figures: figuresOf(data.usage.prompt_tokens, data.usage.completion_tokens,
                                  data.usage.prompt_tokens_details.cached_tokens, data.cache_miss, data.timing, data.seed,
                                  data.finish_reason === 'length') };
    },
  },
};

function figuresOf(prompt, written, cached, miss, timing, seed, cut) {
  return { prompt, written, cached, miss, seed, cut,
           first: timing.first_token_ms, speed: timing.decode_ms > 0 ? written / timing.decode_ms * 1e3 : 0 };
}
