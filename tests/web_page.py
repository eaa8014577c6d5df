#!/usr/bin/env python3
"""Drives the web page of a running server with headless Chromium, as its users do, and looks whether all is right.

usage: krait serve MODEL --port 8000 &
       python3 tests/web_page.py --url http://127.0.0.1:8000/ [--key KEY] [--shots FOLDER] [--chromium PROGRAM]

Run by hand: needs the program `chromium` (Debian: apt-get install chromium) and nothing else. Sends, streams, stops, forks,
rewinds, regenerates, edits, breaks the connection off, exports, imports, deletes; checks that text stays text, that nothing
comes from other hosts, that the page can be used with keys alone and says its names to a screen reader, contrast, sizes,
layout shifts. Screenshots (light, dark, narrow, empty, settings, error) go to FOLDER: look at them. It deletes the
conversations that it made. Exit code 0: all was right.
"""
import argparse
import json
import pathlib
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

sys.path.append(str(pathlib.Path(__file__).resolve().parent))
from browser import Browser, BrowserError  # noqa: E402
from relay import Relay  # noqa: E402

AUDIT = (pathlib.Path(__file__).resolve().parent / "web_page_audit.js").read_text()
SHIFTS = """window.shifts = []; new PerformanceObserver((l) => { for (const e of l.getEntries()) if (!e.hadRecentInput)
  window.shifts.push([e.value, e.sources.map((s) => s.node && (s.node.id || s.node.className))]); })
  .observe({type: 'layout-shift', buffered: true});
  window.violations = []; document.addEventListener('securitypolicyviolation', (e) => window.violations.push(e.violatedDirective));"""

IDLE = "!current.running && document.querySelectorAll('.busy').length === 0"


class Test:
    def __init__(self, args):
        self.direct, self.key, self.shots = args.url.rstrip("/") + "/", args.key, pathlib.Path(args.shots)
        there = urllib.parse.urlsplit(args.url)
        self.relay = Relay(there.hostname, there.port or 80)
        self.url = f"http://127.0.0.1:{self.relay.port}/"
        self.shots.mkdir(parents=True, exist_ok=True)
        self.failed = self.passed = 0
        self.browser = Browser(args.chromium)
        self.made = set()

    def check(self, what, good, detail=""):
        self.passed, self.failed = self.passed + bool(good), self.failed + (not good)
        print(f"{'ok    ' if good else 'FAILED'} {what}{'' if good or detail == '' else f': {detail}'}", flush=True)
        return good

    def api(self, method, path, body=None):
        headers = {"Content-Type": "application/json"} | ({"Authorization": "Bearer " + self.key} if self.key else {})
        data = None if body is None else json.dumps(body).encode()
        r = urllib.request.Request(self.direct + path, data, headers, method=method)
        with urllib.request.urlopen(r, timeout=60) as answer:
            return json.load(answer)

    def turns(self, conversation):
        return [t["assistant"] for t in self.api("GET", f"v1/states/{conversation}")["history"]]

    def current(self):
        conversation = self.browser.js("current.id")
        self.made.add(conversation)
        return conversation

    def say(self, text, wait=True):
        b = self.browser
        b.js("document.querySelector('#message').focus()")
        b.type(text)
        b.key("Enter")
        if wait:
            b.wait(IDLE, 120)
            self.current()

    def reload(self):
        """The page anew, with its conversation of two turns."""
        self.browser.js("window.old = true")
        self.browser.call("Page.reload")
        self.browser.wait("!window.old && typeof current !== 'undefined' && current.turns.length === 2 && current.views.length === 2")

    def shot(self, name):
        self.browser.js("new Promise((f) => requestAnimationFrame(() => setTimeout(f, 120)))")
        self.browser.screenshot(self.shots / f"{name}.png")

    def audit(self, name):
        faults = self.browser.js(AUDIT)
        self.check(f"{name}: ids, references, contrast, sizes", not faults, faults[:6])
        nameless = [role for role, label in self.browser.controls() if not label.strip() and role not in ("list", "group")]
        self.check(f"{name}: every control and region has a name", not nameless, nameless)

    # ---- what users do

    def load(self):
        b = self.browser
        b.call("Page.addScriptToEvaluateOnNewDocument", source=SHIFTS)
        b.look()
        b.call("Page.navigate", url=self.url)
        if self.key:
            b.wait("document.querySelector('#key-dialog').open")
            self.shot("key")
            self.audit("key")
            b.type("wrong")
            b.key("Enter")
            b.wait("document.querySelector('#key-problem').textContent")
            self.check("a wrong key is told", True)
            b.type(self.key)
            b.key("Enter")
        b.wait("document.querySelector('#dot').dataset.state === 'good'")
        b.wait("document.querySelector('#welcome-text').textContent.trim()")
        self.check("the message box has the focus", b.js("document.activeElement.id") == "message")
        self.shot("empty")
        self.audit("empty")

    def set_settings(self, **values):
        b = self.browser
        b.click("#open-settings")
        for name, value in values.items():
            b.js(f"document.getElementById('{name}').value = '{value}'")
        b.click("#settings button[type=submit]")

    def talk(self):
        b = self.browser
        self.set_settings(max_tokens=300)
        b.js("window.spoken = []; new MutationObserver(() => spoken.push(document.querySelector('#status').textContent))"
             ".observe(document.querySelector('#status'), {childList: true})")
        b.js("document.querySelector('#message').focus()")
        b.type("Once upon a time")
        b.key("Enter", shift=True)
        b.type("there was")
        self.check("Shift+Enter begins a new line", b.js("document.querySelector('#message').value") == "Once upon a time\nthere was")
        b.js("document.querySelector('#message').value = 'Once upon a time'")
        self.say("", wait=False)
        b.wait("current.running && current.running.written > 0")
        self.check("while it is written: busy, Stop", b.js("document.querySelector('#send').textContent === 'Stop' && "
                                                           "document.querySelector('.busy .text[aria-busy=true]') !== null"))
        b.wait(IDLE, 120)
        first = self.current()
        kept = self.turns(first)
        shown = b.js("document.querySelector('.turn:last-child .assistant .text').textContent")
        self.check("Enter sends; the answer is what the server keeps", [t.strip() for t in kept] == [shown.strip()] and shown, [kept, shown])
        words = b.js("document.querySelector('.turn:last-child .figures').textContent")
        self.check("figures of the turn", all(w in words for w in ("token", "tokens/s", "first after", "cached", "seed")), words)
        spoken = b.js("spoken")
        self.check("the answer is spoken once, when it is complete", len(spoken) == 2 and spoken[-1] == "Answer: " + shown, spoken)
        self.say("Then came the night")
        self.check("a second turn in the same conversation", self.current() == first and len(self.turns(first)) == 2)
        words = b.js("document.querySelector('.turn:last-child .figures').textContent")
        self.check("its beginning came from the cache", " 0 of " not in words, words)
        self.check("the list has it", b.js("document.querySelector('.entry[aria-current] .entry-facts').textContent").startswith("2 turns"))
        self.check("facts: size of the state, tokens, turns", all(w in b.js("document.querySelector('#facts').textContent")
                                                                  for w in ("State", "iB", "tokens", "2 turns")))
        shifts = b.js("shifts")
        self.check("no layout shift, loading and talking", sum(s[0] for s in shifts) < 0.01, shifts[:8])
        self.shot("light")
        self.audit("light")
        return first

    def stop(self, first):
        b = self.browser
        self.set_settings(max_tokens=20000)
        self.say("And on it went", wait=False)
        b.wait("current.running && current.running.written > 5")
        self.check("figures while it is written", b.wait("document.querySelector('#progress').textContent.includes('tokens/s')"))
        self.shot("writing")
        b.key("Escape")
        b.wait(IDLE, 10)
        self.check("Escape stops, and says what became of the turn", "Stopped" in b.js("document.querySelector('.turn:last-child .problem').textContent"))
        time.sleep(1)
        self.check("the stopped turn is not kept", len(self.turns(first)) == 2)
        self.check("the focus is in the message box", b.js("document.activeElement.id") == "message")
        self.shot("stopped")
        self.audit("stopped")
        self.set_settings(max_tokens=24)

    def adapters(self):
        """Of a server with --lora: a new conversation with the last of the models."""
        b = self.browser
        names = [m["id"] for m in self.api("GET", "v1/models")["data"]]
        self.check("one model: no choice, several: a choice", b.js("document.querySelector('#model').hidden") == (len(names) < 2))
        if len(names) < 2:
            return
        before = self.current()
        b.click("#new")
        b.js(f"const m = document.querySelector('#model'); m.value = {json.dumps(names[-1])}; m.dispatchEvent(new Event('change'))")
        self.say("Hello.")
        b.wait("document.querySelector('#model').disabled")
        model = self.api("GET", f"v1/states/{self.current()}")["model"]
        self.check("the adapter that was chosen answers", model == names[-1], model)
        self.shot("adapter")
        self.audit("adapter")
        b.js(f"localStorage.removeItem('krait.model'); openConversation({json.dumps(before)})")
        b.wait(f"current.id === {json.dumps(before)}")

    def branch(self, first):
        b = self.browser
        before = self.turns(first)
        b.click(".turn:nth-child(1) .actions button:nth-child(3)")
        b.wait(f"current.id !== '{first}'")
        fork = self.current()
        self.check("a fork begins with the same turns", self.turns(fork) == before[:1])
        self.check("where it came from is as it was", self.turns(first) == before)
        self.say("Elsewhere")
        one = self.turns(fork)
        self.check("the fork goes on by itself", len(one) == 2 and self.turns(first) == before)
        b.click(".turn:last-child .actions button:nth-child(4)")
        b.wait("document.querySelector('#ask').open")
        self.check("nothing is taken back before the user says so", self.turns(fork) == one)
        last = b.js("current.turns.at(-1).response_id")
        b.key("Enter")
        b.wait(f"current.turns.length === 2 && current.turns.at(-1).response_id !== '{last}' && {IDLE}", 120)
        other = self.turns(fork)
        self.check("regenerated: another answer in its place", len(other) == 2 and other[0] == one[0] and other[1] != one[1], other)
        b.click(".turn:nth-child(1) .actions button:nth-child(4)")
        b.wait("document.querySelector('#ask').open")
        self.shot("ask")
        self.audit("ask")
        b.key("Enter")
        b.wait("current.turns.length === 1")
        self.check("rewound", self.turns(fork) == one[:1])
        b.click(".turn:nth-child(1) .actions button:nth-child(2)")
        b.wait("document.querySelector('#ask').open")
        b.key("Enter")
        b.wait("current.turns.length === 0")
        self.check("edited: back in the message box", b.js("document.querySelector('#message').value") == "Once upon a time")
        b.key("Enter")
        b.wait("current.turns.length === 1", 60)
        self.check("and sent again, in a conversation rewound to its beginning", len(self.turns(fork)) == 1)

    def break_off(self):
        """The same seed with and without a broken connection: the same answer."""
        b = self.browser
        answers = []
        self.set_settings(max_tokens=300, seed=7)
        for broken in (False, True):
            b.click("#new")
            self.say("The road was long", wait=False)
            b.wait("current.running && current.running.written > 3")
            if broken:
                self.relay.cut()
                b.wait("!current.running || current.running.broken")
                self.check("a broken connection is noticed, and told", b.js(
                    "current.running && document.querySelector('#progress').textContent.includes('broke off')"))
            b.wait(IDLE, 120)
            answers += self.turns(self.current())
        self.check("taken up again: the same answer", len(answers) == 2 and answers[0] == answers[1], answers)
        self.set_settings(max_tokens=24, seed="")

    def text_stays_text(self):
        b = self.browser
        self.say("<img src=x onerror='window.hacked = 1'><b>bold</b>")
        self.check("markup is text", b.js("!window.hacked && document.querySelectorAll('#main img, #main b').length === 0"))

    def files(self):
        b = self.browser
        b.click("#rename")
        b.wait("document.querySelector('#ask').open")
        b.type("Of markup")
        b.key("Enter")
        self.check("renamed", b.wait("document.querySelector('#title').textContent === 'Of markup'"))
        conversation = self.current()
        b.click("#export")
        file = b.folder / f"{conversation}.state"
        for _ in range(100):
            if file.exists() and file.stat().st_size:
                break
            time.sleep(0.1)
        self.check("exported", file.exists())
        b.files("#import-file", [file])
        b.wait(f"current.id !== '{conversation}'")
        self.current()
        self.check("imported: how much it has read", "imported state" in b.js("document.querySelector('#welcome-text').textContent"))
        self.shot("imported")
        self.say("And so")
        self.check("the imported conversation goes on", b.js("current.turns.length") == 1)
        wrong = b.folder / "wrong.state"
        wrong.write_bytes(b"this is no state file" * 100)
        b.files("#import-file", [wrong])
        self.check("a wrong file is refused, with the reason", b.wait("!document.querySelector('#alert-close').hidden && "
                                                                      "document.querySelector('#alert-text').textContent"))
        self.shot("error")
        self.audit("error")

    def delete(self):
        b = self.browser
        conversation = self.current()
        b.click("#delete")
        b.wait("document.querySelector('#ask').open")
        b.key("Escape")
        b.wait("!document.querySelector('#ask').open")
        self.check("Escape leaves a dialog, and nothing is done", len(self.turns(conversation)) == 1)
        self.check("the focus is back", b.js("document.activeElement.id") == "delete")
        b.click("#delete")
        b.wait("document.querySelector('#ask').open")
        b.key("Enter")
        b.wait(f"current.id !== '{conversation}'")
        listed = [c["conversation_id"] for c in self.api("GET", "v1/states")["data"]]
        self.check("deleted", conversation not in listed)

    def errors(self, first):
        b = self.browser
        b.call("Page.navigate", url=self.url + "#no-such-conversation")
        self.check("an unknown conversation is told", b.wait("document.querySelector('#alert-text').textContent"))
        b.offline(True)
        self.say("Nobody hears this")
        self.check("no connection: told where the answer would be",
                   "cannot be reached" in b.js("document.querySelector('.turn:last-child .problem').textContent"))
        b.offline(False)
        b.click(".turn:last-child .actions button:nth-child(1)")
        b.wait("current.turns.length === 1", 60)
        self.check("and tried again", len(self.turns(self.current())) == 1)
        b.call("Page.navigate", url=self.url + "#" + first)
        b.wait("current.turns.length === 2")
        self.reload()
        self.check("after a reload: the same conversation, its figures too",
                   "tokens/s" in b.js("document.querySelector('.turn:last-child .figures').textContent"))

    def keys(self):
        """Tab through everything: the focus is always visible, and comes by everything that can be operated."""
        b = self.browser
        b.js("document.body.tabIndex = -1; document.body.focus(); document.body.removeAttribute('tabindex')")
        seen, faint = [], []
        for _ in range(80):
            b.key("Tab")
            where = b.js("""(() => { const e = document.activeElement; const s = getComputedStyle(e);
              const box = e.closest('.composer') && e.id === 'message' ? getComputedStyle(e.closest('.composer')).boxShadow : 'none';
              return [e.id || e.getAttribute('aria-label') || e.dataset.id || e.textContent.slice(0, 20),
                      s.outlineStyle !== 'none' || box !== 'none', e === document.body]; })()""")
            if where[2] or where[0] in seen:
                break
            seen.append(where[0])
            if not where[1]:
                faint.append(where[0])
        self.check("Tab comes by everything", all(i in seen for i in ("new", "import", "rename", "log", "message", "send", "open-settings")) and
                   any(s.startswith("Fork") for s in seen), seen)
        self.check("the skip link is first", seen[:1] and seen[0].startswith("Skip"), seen[:1])
        self.check("the focus is visible everywhere", not faint, faint)

    def looks(self):
        b = self.browser
        b.look(dark=True)
        self.shot("dark")
        self.audit("dark")
        b.look()
        b.click("#open-settings")
        self.shot("settings")
        self.audit("settings")
        b.js("document.getElementById('temperature').value = 7")
        b.click("#settings button[type=submit]")
        self.check("a setting out of range is refused, and told", b.js("document.querySelector('#settings').open && "
                                                                       "document.querySelector('#settings-problem').textContent.includes('0 to 2')"))
        self.shot("settings-wrong")
        b.key("Escape")
        b.look(width=375, height=700)
        self.shot("narrow")
        self.audit("narrow")
        b.look(width=320, height=560, dark=True)
        self.shot("narrow-dark")
        self.audit("320 pixels wide")
        b.click("#open-sidebar")
        self.check("the list opens, with the focus in it", b.wait("document.activeElement.id === 'close-sidebar'"))
        self.shot("narrow-list")
        self.audit("narrow, list")
        b.key("Escape")
        self.check("Escape closes it", b.js("document.activeElement.id === 'open-sidebar'"))
        b.look()

    def whole(self):
        b = self.browser
        self.reload()
        time.sleep(0.5)
        shifts = b.js("shifts")
        self.check("no layout shift while loading", sum(s[0] for s in shifts) < 0.01, shifts)
        self.check("no violation of the content security policy", not b.js("violations"), b.js("violations"))
        host = urllib.parse.urlsplit(self.url).netloc
        urls = [e["params"]["request"]["url"] for e in b.events if e["method"] == "Network.requestWillBeSent"]
        foreign = [u for u in urls if urllib.parse.urlsplit(u).netloc not in ("", host)]
        self.check("nothing comes from other hosts", urls and not foreign, foreign)
        thrown = [e["params"]["exceptionDetails"] for e in b.events if e["method"] == "Runtime.exceptionThrown"]
        self.check("no exception in the page", not thrown, json.dumps(thrown)[:600])

    def run(self):
        try:
            self.load()
            first = self.talk()
            self.stop(first)
            self.branch(first)
            self.break_off()
            self.text_stays_text()
            self.files()
            self.delete()
            self.errors(first)
            self.adapters()
            self.keys()
            self.looks()
            self.whole()
        except BrowserError as e:
            self.check("the test ran to its end", False, e)
            self.shot("failed")
            print(self.browser.js("document.body.innerText")[:2000])
        finally:
            self.browser.close()
            for conversation in self.made:
                try:
                    self.api("DELETE", f"v1/states/{conversation}")
                except urllib.error.HTTPError:
                    pass  # gone already
        print(f"{self.passed} checks passed, {self.failed} failed; screenshots: {self.shots}")
        return 1 if self.failed else 0


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--url", default="http://127.0.0.1:8000/")
    p.add_argument("--key", default="", help="an API key, if the server wants one")
    p.add_argument("--shots", default=str(pathlib.Path(tempfile.gettempdir()) / "krait-page"), help="folder for screenshots")
    p.add_argument("--chromium", default="chromium")
    return Test(p.parse_args()).run()


if __name__ == "__main__":
    sys.exit(main())
