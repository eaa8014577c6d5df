"""A headless Chromium, driven over pipes by its DevTools protocol; needs nothing but the program `chromium`."""
import base64
import fcntl
import json
import os
import pathlib
import select
import shutil
import subprocess
import tempfile
import time


class BrowserError(Exception):
    pass


class Browser:
    def __init__(self, program="chromium"):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="krait-page-"))
        commands, self._out = os.pipe()
        self._in, answers = os.pipe()
        high = [fcntl.fcntl(f, fcntl.F_DUPFD, 10) for f in (commands, answers)]  # out of the way of 3 and 4
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-extensions", "--mute-audio",
                 "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage", "--hide-scrollbars",
                 "--remote-debugging-pipe", f"--user-data-dir={self.folder / 'profile'}", "about:blank"]
        joined = f'exec "$@" 3<&{high[0]} 4>&{high[1]}'  # what it reads and what it writes
        self._process = subprocess.Popen(["bash", "-c", joined, "bash", program, *flags], pass_fds=high,
                                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for f in (commands, answers, *high):
            os.close(f)
        self._rest, self._last_id, self._session = b"", 0, None
        self.events = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log", "DOM", "Accessibility"):
            self.call(domain + ".enable")
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.folder))

    def close(self):
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _receive(self, timeout):
        """The next message; None after `timeout` seconds."""
        end = time.monotonic() + timeout
        while b"\0" not in self._rest:
            if not select.select([self._in], [], [], max(0, end - time.monotonic()))[0]:
                return None
            more = os.read(self._in, 1 << 16)
            if not more:
                raise BrowserError("the browser ended")
            self._rest += more
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def call(self, method, **params):
        self._last_id += 1
        message = {"id": self._last_id, "method": method, "params": params}
        if self._session and not method.startswith(("Target.", "Browser.")):
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive(60)
            if answer is None:
                raise BrowserError(f"{method}: no answer")
            if answer.get("id") == self._last_id:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error']}")
                return answer["result"]
            if "method" in answer:
                self.events.append(answer)

    def js(self, expression):
        """The value of an expression in the page; promises are waited for."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise BrowserError(f"{expression[:200]}: {answer['exceptionDetails'].get('exception', {}).get('description')}")
        return answer["result"].get("value")

    def wait(self, expression, seconds=30):
        """Until the expression is true; its value. It may throw before: the page is being loaded."""
        end = time.monotonic() + seconds
        why = ""
        while time.monotonic() < end:
            try:
                value = self.js(expression)
                if value:
                    return value
            except BrowserError as e:
                why = f" ({e})"
            time.sleep(0.05)
        raise BrowserError(f"not within {seconds} s: {expression}{why}")

    def key(self, name, shift=False):
        codes = {"Enter": 13, "Escape": 27, "Tab": 9}
        common = {"key": name, "code": name, "windowsVirtualKeyCode": codes[name], "modifiers": 8 if shift else 0}
        self.call("Input.dispatchKeyEvent", type="keyDown", text="\r" if name == "Enter" else "", **common)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def type(self, text):
        self.call("Input.insertText", text=text)

    def click(self, selector):
        """With the mouse, in the middle of what is there."""
        place = self.js(f"""(() => {{ const e = document.querySelector({json.dumps(selector)});
            e.scrollIntoView({{block: 'nearest'}}); const r = e.getBoundingClientRect();
            return [r.x + r.width / 2, r.y + r.height / 2]; }})()""")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)

    def files(self, selector, paths):
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(p) for p in paths])

    def offline(self, on):
        self.call("Network.emulateNetworkConditions", offline=on, latency=0, downloadThroughput=-1, uploadThroughput=-1)

    def look(self, width=1280, height=800, dark=False, still=True):
        """Size of the window, and what the user's system prefers."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500)
        self.call("Emulation.setEmulatedMedia", features=[
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce" if still else "no-preference"}])

    def screenshot(self, path):
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def controls(self):
        """(role, name) of everything that can be operated, as a screen reader is told."""
        roles = {"button", "link", "textbox", "searchbox", "spinbutton", "checkbox", "combobox", "slider", "dialog", "region",
                 "navigation", "complementary", "list", "group", "switch", "tab", "menuitem"}
        nodes = self.call("Accessibility.getFullAXTree")["nodes"]
        return [(n["role"]["value"], n.get("name", {}).get("value", "")) for n in nodes
                if not n.get("ignored") and n.get("role", {}).get("value") in roles]
