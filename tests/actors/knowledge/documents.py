"""Documents that tests make: PDFs, and texts to look things up in."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from pypdf import PdfReader, PdfWriter

from tests.fixtures.models import minilm_folder, models_folder

TEXTS = {
    "refunds.md": (
        "# Refunds\n\nA customer may return a bicycle within 30 days of delivery. The refund goes to the "
        "card that was charged and takes five working days.\n\n## Exceptions\n\nCustom frames are made to "
        "measure and cannot be returned. Batteries are taken back at any time, since the law asks for it.\n"
    ),
    "network.txt": (
        "The office network is split into three zones. Printers live in zone B. If a printer shows the code "
        "E4711, its certificate has expired: renew it at the console and restart the spooler.\n"
    ),
    "garden.html": (
        "<html><head><title>The roof garden</title></head><body><nav>Home</nav><h1>Watering</h1><p>Tomatoes "
        "are watered every morning before nine. Basil gets water in the evening.</p><h1>Bees</h1><p>Two "
        "hives stand in the south corner. In May they weigh about 40 kilograms each.</p></body></html>"
    ),
}


def pdf(*pages: str) -> bytes:
    """A small PDF with a line of text on each page."""
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>"]
    kids = " ".join(f"{4 + 2 * at} 0 R" for at in range(len(pages)))
    objects.append(f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode())
    objects.append(b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
    for at, text in enumerate(pages):
        stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET".encode()
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Resources << /Font << /F1 3 0 R >> >> "
            + f"/Contents {5 + 2 * at} 0 R >>".encode()
        )
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream))
    return assembled(objects)


def assembled(objects: Sequence[bytes]) -> bytes:
    """A PDF file of these objects, the first of which is its catalogue."""
    out = bytearray(b"%PDF-1.4\n")
    places = []
    for number, each in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, each)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    out += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)
    return bytes(out)


def encrypted(data: bytes, password: str) -> bytes:
    """The PDF with a password."""
    writer = PdfWriter(clone_from=PdfReader(BytesIO(data)))
    writer.encrypt(password, algorithm="RC4-128")
    out = BytesIO()
    writer.write(out)
    return bytes(out.getvalue())


def library(folder: Path) -> Path:
    """A folder with `TEXTS` in it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in TEXTS.items():
        (folder / name).write_text(text)
    return folder


def data_folder(folder: Path) -> Path:
    """A data folder that has the embedding model."""
    minilm_folder()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "models").symlink_to(models_folder())
    return folder
