"""Libraries of others stand here as they were published: each with its version, source, licence and hash."""

from __future__ import annotations

import hashlib
import re
from importlib import metadata
from pathlib import Path

import pytest

import rtpool

ROOT = Path(__file__).parents[3]
VENDORED = ROOT / "numpy_handler" / "rtpool" / "_pictures" / "vendored"
ROWS = re.findall(r"^\| `(\S+)` \| (.+?) \| (.+?) \| `([0-9a-f]{64})` \|$", (VENDORED / "README.md").read_text(), re.M)


def test_every_file_is_listed_with_its_licence() -> None:
    listed = {name for name, *_ in ROWS}
    there = {path.name for path in VENDORED.iterdir()} - {"README.md"}
    licences = {name for name in there if name.endswith(".LICENSE.txt")}
    assert listed == there - licences and licences
    for _, _, licence, _ in ROWS:
        assert re.findall(r"`(\S+\.LICENSE\.txt)`", licence)
        assert set(re.findall(r"`(\S+\.LICENSE\.txt)`", licence)) <= licences


@pytest.mark.parametrize("name, published, licence, digest", ROWS, ids=[row[0] for row in ROWS])
def test_files_are_as_they_were_published(name: str, published: str, licence: str, digest: str) -> None:
    data = (VENDORED / name).read_bytes()
    assert hashlib.sha256(data).hexdigest() == digest
    assert (
        hashlib.sha256((Path(rtpool.__file__).parent / "_pictures" / "vendored" / name).read_bytes()).hexdigest()
        == digest
    )
    # They stand inside of a page: nothing in them may end a script, or be changed by an HTML parser.
    assert b"</script" not in data.lower() and b"</style" not in data.lower() and b"\r" not in data


def test_licences_are_installed_as_such() -> None:
    files = metadata.files("rtpool")
    if files is None:
        pytest.skip("installed without a list of files")
    names = {file.name for file in files if "dist-info" in str(file)}
    if not any(name.startswith("LICENSE") for name in names):
        pytest.skip("installed by a pip that keeps no licences")
    assert {path.name for path in VENDORED.glob("*.LICENSE.txt")} <= names


def test_the_only_requirement_is_numpy() -> None:
    required = [line for line in metadata.requires("rtpool") or [] if "extra ==" not in line]
    assert [re.split(r"[^\w-]", line)[0].lower() for line in required] == ["numpy"]
