"""The table of torchvision's and timm's networks: rows are kept, chosen and told; one network goes the whole way."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest

from benchmarks.families import __main__ as families
from benchmarks.families.checking import check
from benchmarks.families.names import NAMES
from benchmarks.families.opsets import OPSETS
from benchmarks.families.report import DOCUMENT, document
from benchmarks.families.row import TOLERANCE, Row, append, read

GOOD = Row(
    name="torchvision/alexnet", opset=11, date="2026-11-26", cpu="a CPU", versions={"torch": "2"},
    operators=20, parameters=61_100_840, compile_seconds=15.2, peak_gib=0.9, error=2.6e-6, peer_error=1e-6,
)  # fmt: skip


# What is asked for by name; each has at least this network in the table.
ASKED = [
    "alexnet",
    "vgg11",
    "resnet18",
    "resnext50_32x4d",
    "wide_resnet50_2",
    "densenet121",
    "googlenet",
    "inception_v3",
    "squeezenet1_1",
    "shufflenet_v2_x1_0",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "mnasnet1_0",
    "efficientnet_b0",
    "efficientnet_v2_s",
    "regnet_y_400mf",
    "convnext_tiny",
    "deeplabv3_mobilenet_v3_large",
    "fcn_resnet50",
    "lraspp_mobilenet_v3_large",
    "r3d_18",
    "mc3_18",
    "r2plus1d_18",
]


def test_the_page_is_what_the_rows_say() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == document(read()), (
        "docs/zoo.md is stale; run: python -m benchmarks.families table"
    )


@pytest.mark.parametrize("name", ASKED)
def test_every_family_is_compiled_and_right(name: str) -> None:
    rows = [row for row in read().values() if row.name == f"torchvision/{name}"]
    assert any(row.ok for row in rows), f"{name} has {rows or 'no row'}"


def test_rows_are_kept_and_the_last_of_each_counts(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    assert read(path) == {}
    bad = msgspec.structs.replace(GOOD, error=None, failure="checking: no")
    append([bad], path)
    append([GOOD, msgspec.structs.replace(GOOD, opset=12)], path)
    assert read(path)["torchvision/alexnet", 11] == GOOD
    assert len(read(path)) == 2


def test_what_is_good() -> None:
    assert GOOD.ok
    assert not msgspec.structs.replace(GOOD, error=2 * TOLERANCE).ok
    assert not msgspec.structs.replace(GOOD, error=float("nan")).ok
    assert not msgspec.structs.replace(GOOD, error=None).ok


def test_the_page_names_what_failed() -> None:
    bad = msgspec.structs.replace(GOOD, opset=12, error=None, failure="exporting: no such operator")
    text = document({("a", 1): GOOD, ("a", 2): bad})
    assert "| alexnet | 11 | 20 | 61.1 | 15 | 0.9 | 2.6e-06 | 1.0e-06 |" in text
    assert "- alexnet (opset 12): exporting: no such operator" in text
    assert "1 of 2 compiled" in text


def test_all_opsets_have_their_turn() -> None:
    jobs = dict(families._chosen(["torchvision/*"]))
    assert set(jobs.values()) == set(OPSETS)
    assert list(jobs) == list(NAMES["torchvision"])


def test_a_pattern_that_names_nothing_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert families.main(["check", "torchvision/resnet17"]) == 2
    assert "unknown network 'torchvision/resnet17'" in capsys.readouterr().err


def test_packages_that_are_not_there_are_left_out_or_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(families, "_versions", lambda *_: {"torch": "2"})
    monkeypatch.setattr(families, "find_spec", lambda package: None)
    assert families.main(["check", "monai/dynunet"]) == 5
    assert "pip install monai" in capsys.readouterr().err
    assert families.main(["check", "--rows", str(tmp_path / "rows.jsonl")]) == 0
    assert "left out, since they are not installed: diffusers, monai" in capsys.readouterr().out


def test_a_good_row_is_not_made_again_and_a_failure_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(families, "_versions", lambda *_: {"torch": "2"})
    monkeypatch.setattr(families, "find_spec", lambda package: True)
    monkeypatch.setattr(families, "_child", lambda module, *_: {"failure": f"{module}: no"})
    path = tmp_path / "rows.jsonl"
    append([GOOD], path)
    names = ["check", "torchvision/alexnet", "torchvision/vgg11", "--rows", str(path)]
    assert families.main(names) == 1
    assert "2 networks, 1 have a good row" in capsys.readouterr().out
    assert read(path)["torchvision/vgg11", 12].failure == "exporting: no"


def test_a_child_that_fails_is_told_by_its_last_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "false")
    assert families._child("checking") == {"failure": "checking: died with 1"}


def test_a_file_is_compiled_and_compared(tiny: Path) -> None:
    found = check(tiny)
    assert isinstance(found["error"], float)
    assert found["error"] < TOLERANCE


@pytest.mark.slow
def test_a_network_goes_the_whole_way(tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    path = tmp_path / "rows.jsonl"
    assert families.main(["check", "torchvision/squeezenet1_1", "--opset", "18", "--rows", str(path)]) == 0  # fmt: skip
    assert read(path)["torchvision/squeezenet1_1", 18].ok
