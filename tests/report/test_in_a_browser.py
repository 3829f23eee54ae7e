"""Pages in a real browser, where there is one: they ask for nothing, and no text sticks out or lies over another at any width."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from test_pages import PAGES

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WIDTHS = (320, 390, 768, 1280)
_FRAME = """<!doctype html><html><body><script>
const names = %s, widths = %s, found = {};
const wait = (frame) => new Promise((done) => { frame.onload = done; });
(async () => {
  for (const name of names) for (const width of widths) {
    const frame = document.createElement("iframe");
    frame.style.width = width + "px"; frame.style.height = "800px"; frame.style.border = "0"; frame.src = name;
    const loaded = wait(frame); document.body.append(frame); await loaded;
    const page = frame.contentDocument;
    for (const d of page.querySelectorAll("details")) d.open = true;
    const over = [...page.querySelectorAll("h1, h2, h3, p, dd, li, svg.plot text, svg.plot circle, svg.plot rect")].filter((e) => {
      const r = e.getBoundingClientRect();
      return r.width && (r.left < -0.5 || r.right > width + 0.5) && !e.closest(".scroll");
    }).map((e) => e.outerHTML.slice(0, 120));
    for (const plot of page.querySelectorAll("svg.plot")) {
      const texts = [...plot.querySelectorAll("text:not(.told)")].map((e) => [e.textContent, e.getBoundingClientRect()]);
      for (const [a, r] of texts) for (const [b, q] of texts)
        if (r !== q && r.left < q.right - 0.5 && q.left < r.right - 0.5 && r.top < q.bottom - 3 && q.top < r.bottom - 3)
          over.push(a + " lies over " + b);
    }
    found[name + " " + width] = [page.documentElement.scrollWidth, over];
    frame.remove();
  }
  const out = document.createElement("pre"); out.id = "found"; out.textContent = JSON.stringify(found); document.body.append(out);
})();
</script></body></html>"""


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no browser is installed")
def test_pages_fit_every_width_and_ask_for_nothing(tmp_path: Path) -> None:
    names = {f"{n}.html": make for n, make in enumerate(PAGES.values())}
    for name, make in names.items():
        (tmp_path / name).write_text(make())
    (tmp_path / "frame.html").write_text(_FRAME % (json.dumps([*names]), json.dumps(WIDTHS)))
    assert BROWSER is not None
    done = subprocess.run(
        [
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--enable-logging=stderr",
            "--virtual-time-budget=60000", "--window-size=1400,900", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom",
            (tmp_path / "frame.html").as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    match = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert match, done.stdout[-2000:] + done.stderr[-2000:]
    found = json.loads(match[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    assert len(found) == len(names) * len(WIDTHS)
    wide = {key: (width, over) for key, (width, over) in found.items() if width > int(key.split()[1]) or over}
    assert wide == {}
    assert "CONSOLE" not in done.stderr, done.stderr
