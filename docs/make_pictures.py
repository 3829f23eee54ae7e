"""Make the pictures of docs/report.md: pages of the bundled model, seen by a headless Chromium.

python docs/make_pictures.py    (needs chromium; with pngquant the pictures are smaller)
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).resolve().parent
MODEL = DOCS.parent / "examples" / "tiny-gemma3"
PICTURES = DOCS / "pictures"
_FRAME = """<!doctype html><meta name="color-scheme" content="light dark"><style>body{{margin:0;overflow:hidden}}
iframe{{border:0;width:{width}px;height:{height}px}}</style><iframe src="{page}"></iframe>"""


class Picture(NamedTuple):
    """What a picture shows: the beginning of a page, in pixels of CSS."""

    page: str
    width: int
    height: int
    is_dark: bool


#: those of docs/report.md
SHOWN = {
    "convert": Picture("convert.html", 980, 1330, is_dark=False),
    "convert-phone": Picture("convert.html", 390, 1330, is_dark=True),
    "compare": Picture("compare.html", 980, 1330, is_dark=True),
    "mix": Picture("mix.html", 980, 1230, is_dark=False),
}


def make_pages(folder: Path) -> None:
    """Convert the bundled model to some types, compare them with it, and choose types for a size."""
    program = [sys.executable, "-m", "streamconv"]

    def run(*arguments: object) -> None:
        subprocess.run([*program, *map(str, arguments), "--quiet"], cwd=folder, check=True, stdout=subprocess.DEVNULL)

    source = Path("tiny-gemma3")
    (folder / source).symlink_to(MODEL)
    (folder / "text.txt").write_bytes((DOCS / "internals.md").read_bytes() + (DOCS / "merging.md").read_bytes())
    run("imatrix", source, "imatrix.gguf")
    for name in ("Q3_K_M", "Q4_K_M", "Q6_K"):
        page = ["--report", "convert.html"] if name == "Q4_K_M" else []
        run("convert", source, f"tiny-{name}.gguf", "--type", name, "--imatrix", "imatrix.gguf", *page)
    models = [f"tiny-{name}.gguf" for name in ("Q3_K_M", "Q4_K_M", "Q6_K")]
    run("mix", source, "mix.txt", "--bpw", 4.6, "--imatrix", "imatrix.gguf", "--report", "mix.html")
    run("compare", source, *models, "--text", "text.txt", "--report", "compare.html")


def take(picture: Picture, page: Path, out: Path) -> None:
    """A picture of ``page``, in a frame: windows of a browser have a least width that is more than a phone's."""
    frame = page.with_name("frame.html")
    frame.write_text(_FRAME.format(width=picture.width, height=picture.height, page=page.name))
    scheme = 0 if picture.is_dark else 1
    subprocess.run(
        [
            "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            f"--window-size={picture.width},{picture.height}", f"--blink-settings=preferredColorScheme={scheme}",
            f"--screenshot={out}", frame.as_uri(),
        ],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    if shutil.which("pngquant"):
        subprocess.run(["pngquant", "--force", "--strip", "--speed=1", f"--output={out}", "64", str(out)], check=True)


def main() -> None:
    """Make all pictures."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        make_pages(Path(temporary))
        for name, picture in SHOWN.items():
            take(picture, Path(temporary) / picture.page, PICTURES / f"{name}.png")


if __name__ == "__main__":
    main()
